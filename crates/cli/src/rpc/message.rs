//! What requests contain: the head of the module's own tools, so that these can answer and be answered, and a pattern.

/// Bytes of that head.
const HEAD: usize = 12;
/// Where it says what is wanted, 16 bits in the order of the host.
const FLAGS: usize = 10;
/// The flag of who wants an answer of [`SHORT`] bytes.
const SHORT_RESPONSE: u16 = 1 << 1;
/// Bytes of a short answer.
pub(super) const SHORT: usize = 100;

/// A request of so many bytes.
pub(super) fn request(length: u32, one_way: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(pattern).collect();
    if bytes.len() >= HEAD {
        set_length(&mut bytes);
        bytes[4..FLAGS].fill(0);
        let flags = if one_way { SHORT_RESPONSE } else { 0 };
        bytes[FLAGS..HEAD].copy_from_slice(&flags.to_ne_bytes());
    }
    bytes
}

/// Writes its length into a request that was made from another one.
pub(super) fn set_length(bytes: &mut [u8]) {
    if bytes.len() >= HEAD {
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
    }
}

const fn pattern(at: u32) -> u8 {
    (at.wrapping_mul(7) ^ (at >> 8)) as u8
}

/// Cuts a request to what is to be sent back.
pub(super) fn answer(request: &mut Vec<u8>) {
    let head: Option<&[u8; HEAD]> = request.first_chunk();
    let Some(head) = head else { return };
    let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
    let flags = u16::from_ne_bytes([head[FLAGS], head[FLAGS + 1]]);
    if length as usize == request.len() && flags & SHORT_RESPONSE != 0 {
        request.truncate(SHORT);
    }
}

/// Whether an answer is what came of [`answer`]. Servers may write into the head.
pub(super) fn is_answer(request: &[u8], answer: &[u8], one_way: bool) -> bool {
    let length = if one_way && request.len() >= HEAD { request.len().min(SHORT) } else { request.len() };
    let from = if request.len() < HEAD { 0 } else { HEAD };
    // A server may begin a short answer anew.
    answer.len() == length && (one_way || answer[from..] == request[from..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_request_or_its_beginning() {
        for (length, one_way, expected) in [
            (1, true, 1),
            (11, false, 11),
            (12, false, 12),
            (5000, false, 5000),
            (5000, true, 100),
            (50, true, 50),
        ] {
            let request = request(length, one_way);
            assert_eq!(request.len(), length as usize);
            let mut response = request.clone();
            answer(&mut response);
            assert_eq!(response.len(), expected, "{length} {one_way}");
            assert!(is_answer(&request, &response, one_way), "{length} {one_way}");
        }
    }

    #[test]
    fn what_was_changed_is_seen() {
        let request = request(2000, false);
        let mut response = request.clone();
        response[4] ^= 1;
        assert!(is_answer(&request, &response, false), "the head is the server's");
        response[1999] ^= 1;
        assert!(!is_answer(&request, &response, false));
        assert!(!is_answer(&request, &request[..1999], false));
    }

    #[test]
    fn what_has_no_head_of_ours_is_sent_back_whole() {
        let mut strange = vec![0xff; 300];
        answer(&mut strange);
        assert_eq!(strange, vec![0xff; 300]);
    }
}
