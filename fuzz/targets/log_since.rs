//! Where to read from, as a reader writes it, cursors included: no panic, and what is taken is read back from what is
//! shown.

use firehose_log::{Cursor, Since};

pub fn since(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Since::parse(text) {
        Ok(since) => assert_eq!(Since::parse(&since.to_string()), Ok(since)),
        Err(error) => assert!(error.to_string().len() < 1_000),
    }
    if let Ok(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.encode(), text, "a cursor has one text only");
    }
}
