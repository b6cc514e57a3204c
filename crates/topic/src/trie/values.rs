/// The values of one filter. Most filters have one subscriber, some have thousands.
#[derive(Debug)]
pub(super) enum Values<T> {
    None,
    One(T),
    Many(Vec<T>),
}

impl<T> Values<T> {
    pub(super) fn push(&mut self, value: T) {
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(value),
            Self::One(first) => Self::Many(vec![first, value]),
            Self::Many(mut values) => {
                values.push(value);
                Self::Many(values)
            }
        };
    }

    /// Takes out the first for which `is_it` says so.
    pub(super) fn take(&mut self, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let at = self.as_slice().iter().position(is_it)?;
        match std::mem::replace(self, Self::None) {
            Self::None => None,
            Self::One(value) => Some(value),
            Self::Many(mut values) => {
                let value = values.swap_remove(at);
                *self = match values.len() {
                    1 => values.pop().map_or(Self::None, Self::One),
                    len => {
                        if len < values.capacity() / 4 {
                            values.shrink_to(len * 2);
                        }
                        Self::Many(values)
                    }
                };
                Some(value)
            }
        }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::None => &mut [],
            Self::One(value) => std::slice::from_mut(value),
            Self::Many(values) => values,
        }
    }
}
