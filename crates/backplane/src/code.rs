//! What FTB's functions return.

use core::fmt;

/// The return codes of FTB API 0.5. `code as i32` is the number; 0 is success and is no variant here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Code {
    /// `FTB_ERR_GENERAL`: FTB has no word for it (refused by a rule, too fast, too many).
    General = -1,
    /// `FTB_ERR_EVENTSPACE_FORMAT`
    EventSpaceFormat = -2,
    /// `FTB_ERR_SUBSCRIPTION_STYLE`
    SubscriptionStyle = -3,
    /// `FTB_ERR_INVALID_VALUE`
    InvalidValue = -4,
    /// `FTB_ERR_DUP_CALL`
    DuplicateCall = -5,
    /// `FTB_ERR_NULL_POINTER`
    NullPointer = -6,
    /// `FTB_ERR_NOT_SUPPORTED`
    NotSupported = -7,
    /// `FTB_ERR_INVALID_FIELD`
    InvalidField = -8,
    /// `FTB_ERR_INVALID_HANDLE`
    InvalidHandle = -9,
    /// `FTB_ERR_DUP_EVENT`
    DuplicateEvent = -10,
    /// `FTB_ERR_INVALID_SCHEMA_FILE`
    InvalidSchemaFile = -11,
    /// `FTB_ERR_INVALID_EVENT_NAME`
    InvalidEventName = -12,
    /// `FTB_ERR_INVALID_EVENT_TYPE`
    InvalidEventType = -13,
    /// `FTB_ERR_SUBSCRIPTION_STR`
    SubscriptionString = -14,
    /// `FTB_ERR_FILTER_ATTR`
    FilterAttribute = -15,
    /// `FTB_ERR_FILTER_VALUE`
    FilterValue = -16,
    /// `FTB_GOT_NO_EVENT`
    NoEvent = -17,
    /// `FTB_FAILURE`: handles that are not equal.
    Failure = -18,
    /// `FTB_ERR_INVALID_PARAMETER`
    InvalidParameter = -19,
    /// `FTB_ERR_NETWORK_GENERAL`
    NetworkGeneral = -20,
    /// `FTB_ERR_NETWORK_NO_ROUTE`
    NetworkNoRoute = -21,
}

impl Code {
    /// All of them, from -1 down.
    pub const ALL: [Self; 21] = [
        Self::General,
        Self::EventSpaceFormat,
        Self::SubscriptionStyle,
        Self::InvalidValue,
        Self::DuplicateCall,
        Self::NullPointer,
        Self::NotSupported,
        Self::InvalidField,
        Self::InvalidHandle,
        Self::DuplicateEvent,
        Self::InvalidSchemaFile,
        Self::InvalidEventName,
        Self::InvalidEventType,
        Self::SubscriptionString,
        Self::FilterAttribute,
        Self::FilterValue,
        Self::NoEvent,
        Self::Failure,
        Self::InvalidParameter,
        Self::NetworkGeneral,
        Self::NetworkNoRoute,
    ];

    /// The code with this number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        let index = usize::try_from(number.checked_neg()?).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", *self as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_ftb() {
        for (number, code) in (1..).zip(Code::ALL) {
            assert_eq!(code as i32, -number);
            assert_eq!(Code::from_number(code as i32), Some(code));
        }
        for number in [0, 1, -22, i32::MIN, i32::MAX] {
            assert_eq!(Code::from_number(number), None);
        }
    }
}
