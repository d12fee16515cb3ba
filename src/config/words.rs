//! The words of an enum without fields, as serde reads them.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// The words that a `T` may be in JSON.
pub fn words_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut words: &[&str] = &[];
    let _ = T::deserialize(Asked(&mut words)); // which tells what it could have been, and finds nothing
    words
}

/// Notes what an enum asks it for.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("it has no value"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = words;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WeightingStart;

    #[test]
    fn the_words_of_an_enum_are_those_that_it_reads() {
        assert_eq!(words_of::<WeightingStart>(), ["learned", "one_hot", "uniform", "learned_random"]);
        assert!(words_of::<f64>().is_empty());
    }
}
