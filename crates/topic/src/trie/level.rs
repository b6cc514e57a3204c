/// A level's bytes: short ones, nearly all, lie in the node itself.
#[derive(Debug)]
pub(super) enum Level {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Box<[u8]>),
}

const SHORT_MAX: usize = 22;

impl Level {
    pub(super) const EMPTY: Self = Self::Short { len: 0, bytes: [0; SHORT_MAX] };

    pub(super) fn new(level: &[u8]) -> Self {
        if level.len() > SHORT_MAX {
            return Self::Long(level.into());
        }
        let mut bytes = [0; SHORT_MAX];
        bytes[..level.len()].copy_from_slice(level);
        Self::Short { len: level.len() as u8, bytes }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }

    pub(super) fn is(&self, level: &[u8]) -> bool {
        self.as_bytes() == level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_any_length_are_kept() {
        for len in [0, 1, 21, 22, 23, 1000] {
            let bytes = vec![b'x'; len];
            assert!(Level::new(&bytes).is(&bytes));
            assert!(!Level::new(&bytes).is(&vec![b'x'; len + 1]));
        }
        assert_eq!(size_of::<Level>(), 24);
    }
}
