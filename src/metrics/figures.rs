//! Named figures, as files have them.

use super::words::{WORDS, said};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Named results, the loss first.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures(pub Vec<(&'static str, Figure)>);

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figure {
    /// A mean over sequences.
    Mean(f64),
    /// A number of sequences.
    Count(u64),
    /// A mean for each position of the answer.
    List(Vec<f64>),
}

impl Figures {
    /// As metrics.jsonl has them: the means alone.
    pub fn of_training(self) -> Figures {
        Figures(self.0.into_iter().filter(|(_, figure)| matches!(figure, Figure::Mean(_))).collect())
    }

    /// Every mean that is one number.
    pub fn means(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().filter_map(|(name, figure)| match figure {
            Figure::Mean(value) => Some((*name, *value)),
            _ => None,
        })
    }

    /// A mean or a count, by its name.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(found, _)| *found == name).and_then(|(_, figure)| match figure {
            Figure::Mean(value) => Some(*value),
            Figure::Count(count) => Some(*count as f64),
            Figure::List(_) => None,
        })
    }

    /// Bits of a sequence, or the squared error.
    pub fn loss(&self) -> f64 {
        self.means().next().map_or(f64::NAN, |(_, loss)| loss)
    }

    /// The means in words.
    pub fn said(&self) -> String {
        self.means().map(|(metric, value)| said(metric, value)).collect::<Vec<_>>().join(", ")
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, figure)| (name, figure)))
    }
}

/// What `Serialize` wrote; other fields of the object are left aside.
impl<'de> Deserialize<'de> for Figures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Figures, D::Error> {
        let read = |(key, value): (String, Value)| {
            let (key, ..) = WORDS.iter().find(|(known, ..)| *known == key)?;
            let figure = match value {
                Value::Array(values) => Figure::List(values.iter().filter_map(Value::as_f64).collect()),
                value if value.is_u64() => Figure::Count(value.as_u64()?),
                value => Figure::Mean(value.as_f64()?),
            };
            Some((*key, figure))
        };
        Ok(Figures(Map::deserialize(deserializer)?.into_iter().filter_map(read).collect()))
    }
}
