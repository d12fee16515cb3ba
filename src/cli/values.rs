//! Values of flags, from what was typed.

use std::path::{Path, PathBuf};

/// Several seeds: ranges with both ends, and single ones, separated by commas.
#[derive(Clone)]
pub struct Seeds(pub Vec<u64>);

impl std::str::FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let number = |part: &str| -> Result<u64, String> {
            part.trim()
                .parse()
                .map_err(|_| format!("`{part}` is no seed: a whole number, 0 or more; several as in 1..10 or 1,5,9"))
        };
        let mut seeds: Vec<u64> = vec![];
        for part in text.split(',') {
            let (first, last) = part.split_once("..").unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err("no seed lies in this range: the first number must be the smaller one".to_string());
            }
            seeds.extend((first..=last).take(10_001_usize.saturating_sub(seeds.len())));
        }
        let count = seeds.len();
        if count > 10_000 {
            return Err("more than 10,000 seeds".to_string());
        }
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() < count { Err("a seed appears twice".to_string()) } else { Ok(Seeds(seeds)) }
    }
}

/// How many of something an axis has.
pub fn count(text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok().filter(|number| (1..=1_000_000).contains(number));
    number.ok_or("expected a whole number from 1 to 1000000, or several as in 10,20,50".to_string())
}

pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more".to_string())
}

pub fn sequences(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or("expected a whole number above 0".to_string())
}

pub fn setting(text: &str) -> Result<String, String> {
    if text.contains('=') {
        Ok(text.to_string())
    } else {
        Err("it has no `=`; for instance training.batch_size=16".to_string())
    }
}

pub fn picture(text: &str) -> Result<PathBuf, String> {
    ending(text, &["png", "svg"])
}

pub fn animation(text: &str) -> Result<PathBuf, String> {
    ending(text, &["gif"])
}

fn ending(text: &str, allowed: &[&str]) -> Result<PathBuf, String> {
    let is = |ending: &&str| Path::new(text).extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    if allowed.iter().any(is) {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("name a file that ends in .{}", allowed.join(" or .")))
    }
}
