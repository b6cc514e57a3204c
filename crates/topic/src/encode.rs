use std::{borrow::Cow, fmt::Write as _};

/// Makes a name from a source's own words: percent-encodes `+`, `#`, `%`, U+0000 and the other control characters
/// (each byte of their UTF-8), and leaves all else, `/` too. It can be undone by percent-decoding.
pub fn encode_name(name: &str) -> Cow<'_, str> {
    if !name.chars().any(is_special) {
        return Cow::Borrowed(name);
    }
    let mut encoded = String::with_capacity(name.len() + 16);
    for char in name.chars() {
        if is_special(char) {
            for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        } else {
            encoded.push(char);
        }
    }
    Cow::Owned(encoded)
}

fn is_special(char: char) -> bool {
    matches!(char, '+' | '#' | '%') || char.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_percent_encoded() {
        assert_eq!(encode_name("c++/c#"), "c%2B%2B/c%23");
        assert_eq!(encode_name("100%\0\n\u{7f}\u{85}"), "100%25%00%0A%7F%C2%85");
    }

    #[test]
    fn ordinary_names_are_borrowed() {
        assert!(matches!(encode_name("openstack/nova ü"), Cow::Borrowed("openstack/nova ü")));
        assert!(matches!(encode_name(""), Cow::Borrowed("")));
    }
}
