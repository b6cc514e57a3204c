//! Unsigned LEB128: seven bits a byte, the lowest first. Only the shortest form is read.

/// Appends `value`.
pub(crate) fn push(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a value off the front; `None` if it is cut short, too large or longer than it needs to be.
pub(crate) fn split(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            let longer_than_needed = byte == 0 && index > 0;
            return if longer_than_needed { None } else { Some((value, &bytes[index + 1..])) };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_read_back(value in any::<u64>(), shift in 0u32..64, tail in any::<[u8; 3]>()) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            push(&mut bytes, value);
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(split(&bytes), Some((value, &tail[..])));
        }
    }

    #[test]
    fn overlong_cut_and_too_large_forms_are_refused() {
        assert_eq!(split(&[]), None);
        assert_eq!(split(&[0x80]), None);
        assert_eq!(split(&[0x80, 0x00]), None);
        assert_eq!(split(&[0xff; 10]), None);
        assert_eq!(split(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
    }
}
