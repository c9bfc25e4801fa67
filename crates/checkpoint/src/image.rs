//! What CRIU wrote, as far as it is read here: who the processes are and what they have open. Unknown fields are skipped;
//! nothing is believed beyond the bytes that are there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use serde::{Deserialize, Serialize};

/// The most that is read of an image; pages are in others.
const MAX_IMAGE: u64 = 64 << 20;
/// Begins all images but the inventory.
const COMMON: u32 = 0x5456_4319;
const INVENTORY: u32 = 0x5831_3116;
const SERVICE: u32 = 0x5510_5940;

/// A process in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's; 0 for the first.
    pub parent: u32,
    /// Its group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// Its name.
    pub name: String,
    /// `running`, `stopped` or `dead`.
    pub state: String,
    /// Its threads.
    pub threads: Vec<u32>,
}

/// Something that a process has open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// The descriptor's number.
    pub number: u32,
    /// `file`, `pipe`, `socket` and so on.
    pub kind: &'static str,
    /// What it leads to.
    pub target: String,
}

#[derive(Clone, PartialEq, Message)]
struct Inventory {
    #[prost(uint32, required, tag = "1")]
    version: u32,
}

#[derive(Clone, PartialEq, Message)]
struct TreeEntry {
    #[prost(uint32, required, tag = "1")]
    pid: u32,
    #[prost(uint32, required, tag = "2")]
    parent: u32,
    #[prost(uint32, required, tag = "3")]
    group: u32,
    #[prost(uint32, required, tag = "4")]
    session: u32,
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    threads: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Core {
    #[prost(message, optional, tag = "3")]
    task: Option<Task>,
    #[prost(message, optional, tag = "4")]
    ids: Option<Ids>,
}

#[derive(Clone, PartialEq, Message)]
struct Task {
    #[prost(uint32, required, tag = "1")]
    state: u32,
    #[prost(string, required, tag = "6")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Ids {
    #[prost(uint32, required, tag = "2")]
    files: u32,
}

#[derive(Clone, PartialEq, Message)]
struct OpenEntry {
    #[prost(uint32, required, tag = "1")]
    id: u32,
    #[prost(int32, required, tag = "3")]
    kind: i32,
    #[prost(uint32, required, tag = "4")]
    number: u32,
}

#[derive(Clone, PartialEq, Message)]
struct FileEntry {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(uint32, required, tag = "2")]
    id: u32,
    #[prost(message, optional, tag = "3")]
    regular: Option<Regular>,
    #[prost(message, optional, tag = "4")]
    inet: Option<Inet>,
    #[prost(message, optional, tag = "16")]
    unix: Option<Unix>,
    #[prost(message, optional, tag = "18")]
    pipe: Option<Pipe>,
}

#[derive(Clone, PartialEq, Message)]
struct Regular {
    #[prost(uint64, required, tag = "3")]
    position: u64,
    #[prost(string, required, tag = "6")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Inet {
    #[prost(uint32, required, tag = "3")]
    family: u32,
    #[prost(uint32, required, tag = "5")]
    protocol: u32,
    #[prost(uint32, required, tag = "6")]
    state: u32,
    #[prost(uint32, required, tag = "7")]
    from_port: u32,
    #[prost(uint32, required, tag = "8")]
    to_port: u32,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    from: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    to: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Unix {
    #[prost(uint32, required, tag = "4")]
    state: u32,
    #[prost(bytes = "vec", required, tag = "11")]
    name: Vec<u8>,
    #[prost(message, optional, tag = "13")]
    owner: Option<Owner>,
}

#[derive(Clone, PartialEq, Message)]
struct Owner {
    #[prost(uint32, required, tag = "2")]
    uid: u32,
    #[prost(uint32, required, tag = "3")]
    gid: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Pipe {
    #[prost(uint32, required, tag = "2")]
    pipe: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Stats {
    #[prost(message, optional, tag = "1")]
    dump: Option<DumpStats>,
}

#[derive(Clone, PartialEq, Message)]
struct DumpStats {
    #[prost(uint32, required, tag = "2")]
    frozen: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Clocks {
    #[prost(message, required, tag = "1")]
    monotonic: Clock,
}

#[derive(Clone, PartialEq, Message)]
struct Clock {
    #[prost(uint64, required, tag = "1")]
    seconds: u64,
}

const KINDS: [&str; 21] = [
    "unknown",
    "file",
    "pipe",
    "fifo",
    "socket",
    "socket",
    "eventfd",
    "epoll",
    "inotify",
    "signalfd",
    "packet",
    "terminal",
    "fanotify",
    "netlink",
    "namespace",
    "tun",
    "external",
    "timerfd",
    "memfd",
    "bpf",
    "pidfd",
];

const REGULAR: i32 = 1;

/// Makes CRIU accept open files that have grown or shrunk since, if the process may write to them: what a program writes
/// while it goes on must not make its checkpoint worthless. All other files have to be as they were.
pub(crate) fn loosen(directory: &Path) -> io::Result<()> {
    let path = directory.join("files.img");
    let bytes = std::fs::read(&path)?;
    let bad = || bad("files.img: it cannot be read");
    let (head, mut rest) = bytes.split_at_checked(8).ok_or_else(bad)?;
    let mut loose = head.to_vec();
    while !rest.is_empty() {
        let length = word(&mut rest).ok_or_else(bad)? as usize;
        let (entry, more) = rest.split_at_checked(length).ok_or_else(bad)?;
        let entry = without_size(entry).ok_or_else(bad)?;
        loose.extend((entry.len() as u32).to_le_bytes());
        loose.extend(entry);
        rest = more;
    }
    std::fs::write(&path, loose)
}

/// An entry of `files.img` without the size, if it is of a file for writing. All else stays, byte for byte.
fn without_size(entry: &[u8]) -> Option<Vec<u8>> {
    const REGULAR_FIELD: u32 = 3;
    const FLAGS: u32 = 2;
    const SIZE: u32 = 8;
    let mut loose = Vec::with_capacity(entry.len());
    for (number, whole, value) in fields(entry)? {
        let inside = if number == REGULAR_FIELD { fields(value)? } else { Vec::new() };
        let flags = inside.iter().find(|(number, ..)| *number == FLAGS);
        let flags = flags.and_then(|(_, _, value)| decode_varint(&mut &**value).ok()).unwrap_or_default();
        // Its lowest two bits say whether it is for writing.
        if flags.trailing_zeros() >= 2 {
            loose.extend(whole);
            continue;
        }
        let kept: Vec<u8> = inside
            .iter()
            .filter(|(number, ..)| *number != SIZE)
            .flat_map(|(_, whole, _)| *whole)
            .copied()
            .collect();
        // Its key: the number, and that a length follows.
        encode_varint(u64::from(REGULAR_FIELD << 3 | 2), &mut loose);
        encode_varint(kept.len() as u64, &mut loose);
        loose.extend(kept);
    }
    Some(loose)
}

/// A field of a message: its number, all bytes, and those of its value.
type Field<'a> = (u32, &'a [u8], &'a [u8]);

/// The fields of a message.
fn fields(mut message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let whole = message;
        let key = decode_varint(&mut message).ok()?;
        let start = message;
        let kind = key & 7;
        let length = match kind {
            0 => {
                decode_varint(&mut message).ok()?;
                start.len() - message.len()
            }
            1 => 8,
            2 => usize::try_from(decode_varint(&mut message).ok()?).ok()?,
            5 => 4,
            _ => return None,
        };
        let value = if kind == 0 { start } else { message };
        let (value, rest) = value.split_at_checked(length)?;
        message = rest;
        fields.push((u32::try_from(key >> 3).ok()?, &whole[..whole.len() - rest.len()], value));
    }
    Some(fields)
}

/// The entries of an image. What it begins with has to be right.
fn entries<T: Message + Default>(path: &Path) -> io::Result<Vec<T>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(MAX_IMAGE + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_IMAGE {
        return Err(bad("it is larger than such an image can be"));
    }
    let mut rest = bytes.as_slice();
    match word(&mut rest) {
        Some(INVENTORY) => {}
        // A second word says of which kind it is; the name does, too.
        Some(COMMON | SERVICE) if word(&mut rest).is_some() => {}
        _ => return Err(bad("it does not begin as an image of CRIU does")),
    }
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let length = word(&mut rest).ok_or_else(|| bad("it ends within an entry"))? as usize;
        let (entry, more) = rest.split_at_checked(length).ok_or_else(|| bad("it ends within an entry"))?;
        entries.push(T::decode(entry).map_err(|error| bad(&error.to_string()))?);
        rest = more;
    }
    Ok(entries)
}

fn word(bytes: &mut &[u8]) -> Option<u32> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*word))
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn named<T>(name: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
}

/// What of a checkpoint's files says how far the clocks were, in its own namespace or in that of the machine.
const CLOCKS: &str = "timens-";

/// The clock that programs measure with, in seconds, as it was; none where nothing is known of it.
pub(crate) fn clock<'a>(directory: &Path, files: impl Iterator<Item = &'a String>) -> Option<u64> {
    let mut names = files.filter(|name| name.starts_with(CLOCKS));
    let clocks: Vec<Clocks> = entries(&directory.join(names.next()?)).ok()?;
    Some(clocks.first()?.monotonic.seconds)
}

/// The processes of an image; whoever calls learns that inventory, tree and each process can be read.
pub(crate) fn processes(directory: &Path) -> io::Result<Vec<Process>> {
    let inventory: Vec<Inventory> = named("inventory.img", entries(&directory.join("inventory.img")))?;
    if inventory.len() != 1 {
        return Err(bad("inventory.img: it has no entry"));
    }
    let tree: Vec<TreeEntry> = named("pstree.img", entries(&directory.join("pstree.img")))?;
    if tree.is_empty() {
        return Err(bad("pstree.img: it has no process"));
    }
    tree.into_iter()
        .map(|entry| {
            let name = format!("core-{}.img", entry.pid);
            let cores: Vec<Core> = named(&name, entries(&directory.join(&name)))?;
            let task = cores.into_iter().find_map(|core| core.task);
            let task = task.ok_or_else(|| bad(&format!("{name}: it has no process")))?;
            let state = match task.state {
                1 => "running",
                3 => "stopped",
                _ => "dead",
            };
            Ok(Process {
                pid: entry.pid,
                parent: entry.parent,
                group: entry.group,
                session: entry.session,
                name: task.name,
                state: state.to_owned(),
                threads: entry.threads,
            })
        })
        .collect()
}

/// How long the processes stood still, in microseconds.
pub(crate) fn frozen(directory: &Path) -> Option<u64> {
    let stats: Vec<Stats> = entries(&directory.join("stats-dump")).ok()?;
    Some(stats.into_iter().next()?.dump?.frozen.into())
}

/// Whose a socket was that lay there: user and group.
pub(crate) fn owner_of_socket(directory: &Path, path: &Path) -> Option<(u32, u32)> {
    let files: Vec<FileEntry> = entries(&directory.join("files.img")).ok()?;
    let lay_there = |unix: &Unix| {
        let name = unix.name.strip_suffix(b"\0").unwrap_or(&unix.name);
        name == path.as_os_str().as_encoded_bytes()
    };
    let mut unix = files.into_iter().filter_map(|file| file.unix).filter(lay_there);
    unix.find_map(|unix| unix.owner).map(|owner| (owner.uid, owner.gid))
}

/// What a process has open.
pub(crate) fn descriptors(directory: &Path, pid: u32) -> io::Result<Vec<Descriptor>> {
    let files: Vec<FileEntry> = named("files.img", entries(&directory.join("files.img")))?;
    let files: BTreeMap<(i32, u32), FileEntry> =
        files.into_iter().map(|file| ((file.kind, file.id), file)).collect();
    let Some(table) = table(directory, pid)? else { return Ok(Vec::new()) };
    let name = format!("fdinfo-{table}.img");
    let open: Vec<OpenEntry> = named(&name, entries(&directory.join(&name)))?;
    let described = open.into_iter().map(|open| {
        let kind = usize::try_from(open.kind).ok().and_then(|kind| KINDS.get(kind)).copied();
        let target = files.get(&(open.kind, open.id)).map(target).unwrap_or_default();
        Descriptor { number: open.number, kind: kind.unwrap_or("unknown"), target }
    });
    let mut described: Vec<_> = described.collect();
    described.sort_by_key(|descriptor| descriptor.number);
    Ok(described)
}

/// The number of a process's table of descriptors.
fn table(directory: &Path, pid: u32) -> io::Result<Option<u32>> {
    let name = format!("ids-{pid}.img");
    let path = directory.join(&name);
    if path.exists() {
        let ids: Vec<Ids> = named(&name, entries(&path))?;
        return Ok(ids.first().map(|ids| ids.files));
    }
    let name = format!("core-{pid}.img");
    let cores: Vec<Core> = named(&name, entries(&directory.join(&name)))?;
    Ok(cores.into_iter().find_map(|core| core.ids).map(|ids| ids.files))
}

fn target(file: &FileEntry) -> String {
    if let Some(regular) = file.regular.as_ref().filter(|_| file.kind == REGULAR) {
        let slash = if regular.name.starts_with('/') { "" } else { "/" };
        return format!("{slash}{}, at {}", regular.name, regular.position);
    }
    if let Some(inet) = &file.inet {
        return inet.to_string_with_state();
    }
    if let Some(unix) = &file.unix {
        let name = String::from_utf8_lossy(&unix.name).replace('\0', "@");
        let state = if unix.state == LISTENING { " listening" } else { "" };
        return format!("unix {name}{state}").trim_end().to_owned();
    }
    file.pipe.as_ref().map_or(String::new(), |pipe| format!("pipe:[{}]", pipe.pipe))
}

const ESTABLISHED: u32 = 1;
const LISTENING: u32 = 10;

impl Inet {
    fn to_string_with_state(&self) -> String {
        let protocol = match self.protocol {
            6 => "tcp",
            17 => "udp",
            _ => "ip",
        };
        let from = address(self.family, &self.from, self.from_port);
        match self.state {
            ESTABLISHED => format!("{protocol} {from} to {}", address(self.family, &self.to, self.to_port)),
            LISTENING => format!("{protocol} {from} listening"),
            _ => format!("{protocol} {from}"),
        }
    }
}

fn address(family: u32, words: &[u32], port: u32) -> String {
    // Words are as the kernel has them in memory.
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    if family == 2 {
        return <[u8; 4]>::try_from(bytes.get(..4).unwrap_or_default())
            .map_or_else(|_| format!("?:{port}"), |bytes| format!("{}:{port}", Ipv4Addr::from(bytes)));
    }
    <[u8; 16]>::try_from(bytes.get(..16).unwrap_or_default())
        .map_or_else(|_| format!("?:{port}"), |bytes| format!("[{}]:{port}", Ipv6Addr::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(words: &[u32], entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        for entry in entries {
            bytes.extend((entry.len() as u32).to_le_bytes());
            bytes.extend(entry);
        }
        bytes
    }

    #[test]
    fn images_are_read_and_damage_is_named() {
        let directory = std::env::temp_dir().join(format!("steadfast-image-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
        write("inventory.img", &image(&[INVENTORY], &[Inventory { version: 2 }.encode_to_vec()]));
        let entry = TreeEntry { pid: 7, parent: 0, group: 7, session: 7, threads: vec![7, 8] };
        write("pstree.img", &image(&[COMMON, 1], &[entry.encode_to_vec()]));
        let task = Task { state: 3, name: "cat".to_owned() };
        write("core-7.img", &image(&[COMMON, 2], &[Core { task: Some(task), ids: None }.encode_to_vec()]));
        write("ids-7.img", &image(&[COMMON, 3], &[Ids { files: 4 }.encode_to_vec()]));
        let open = |id, kind, number| OpenEntry { id, kind, number }.encode_to_vec();
        write("fdinfo-4.img", &image(&[COMMON, 4], &[open(2, 4, 5), open(1, 1, 0), open(9, 99, 6)]));
        let inet = Inet {
            family: 2,
            protocol: 6,
            state: ESTABLISHED,
            from_port: 80,
            to_port: 81,
            from: vec![u32::from_ne_bytes([10, 0, 0, 1])],
            to: vec![u32::from_ne_bytes([10, 0, 0, 2])],
        };
        let files = [
            FileEntry {
                kind: 1,
                id: 1,
                regular: Some(Regular { position: 3, name: "tmp/x".to_owned() }),
                ..FileEntry::default()
            },
            FileEntry { kind: 4, id: 2, inet: Some(inet), ..FileEntry::default() },
        ];
        write("files.img", &image(&[COMMON, 5], &files.map(|file| file.encode_to_vec())));

        let found = processes(&directory).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].state.as_str()), ("cat", "stopped"));
        assert_eq!(found[0].threads, [7, 8]);
        let open = descriptors(&directory, 7).unwrap();
        let open: Vec<_> = open.iter().map(|open| (open.number, open.kind, open.target.as_str())).collect();
        let expected = [
            (0, "file", "/tmp/x, at 3"),
            (5, "socket", "tcp 10.0.0.1:80 to 10.0.0.2:81"),
            (6, "unknown", ""),
        ];
        assert_eq!(open, expected);

        let clocks = Clocks { monotonic: Clock { seconds: 4711 } };
        write("timens-3.img", &image(&[COMMON, 6], &[clocks.encode_to_vec()]));
        let names = ["files.img", "timens-3.img"].map(str::to_owned);
        assert_eq!(clock(&directory, names.iter()), Some(4711));
        assert_eq!(clock(&directory, names[..1].iter()), None);

        // A size counts only where nobody writes.
        let with = |flags: u8| [8, 1, 16, 1, 26, 6, 8, 9, 16, flags, 64, 5, 0xa2, 6, 1, 7];
        write("files.img", &image(&[COMMON, 5], &[with(0).to_vec(), with(1).to_vec()]));
        loosen(&directory).unwrap();
        let loose = [8, 1, 16, 1, 26, 4, 8, 9, 16, 1, 0xa2, 6, 1, 7].to_vec();
        assert_eq!(
            std::fs::read(directory.join("files.img")).unwrap(),
            image(&[COMMON, 5], &[with(0).to_vec(), loose])
        );

        let whole = std::fs::read(directory.join("pstree.img")).unwrap();
        for cut in 0..whole.len() {
            write("pstree.img", &whole[..cut]);
            let error = processes(&directory).unwrap_err().to_string();
            assert!(error.starts_with("pstree.img: "), "{cut}: {error}");
        }
        write("pstree.img", &image(&[COMMON, 1, u32::MAX], &[]));
        processes(&directory).unwrap_err();
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
