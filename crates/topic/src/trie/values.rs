/// The values of one filter, each at its place. Most filters have one subscriber, some have thousands.
#[derive(Debug)]
pub(super) enum Values<T> {
    None,
    One(T),
    Many(Vec<T>),
}

impl<T> Values<T> {
    /// Adds one; gives its place.
    pub(super) fn push(&mut self, value: T) -> u32 {
        let place = self.as_slice().len() as u32;
        *self = match std::mem::replace(self, Self::None) {
            Self::None => Self::One(value),
            Self::One(first) => Self::Many(vec![first, value]),
            Self::Many(mut values) => {
                values.push(value);
                Self::Many(values)
            }
        };
        place
    }

    /// Takes the one at a place out; the last one moves there.
    pub(super) fn take(&mut self, place: u32) -> Option<T> {
        let place = place as usize;
        if place >= self.as_slice().len() {
            return None;
        }
        match std::mem::replace(self, Self::None) {
            Self::None => None,
            Self::One(value) => Some(value),
            Self::Many(mut values) => {
                let value = values.swap_remove(place);
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
