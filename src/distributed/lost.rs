//! The error of a rank that cannot reach the others any more.

use anyhow::Error;

/// The others cannot be reached any more.
#[derive(Debug)]
pub struct Lost(String);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lost {}

pub fn lost(error: &Error) -> Error {
    Lost(format!("lost touch with the other ranks: {}", plain(error))).into()
}

/// What c10d says, without the places in its sources.
pub fn plain(error: &Error) -> String {
    let text = error.to_string();
    let mut line = text.lines().next().unwrap_or_default().to_string();
    for place in ["[enforce fail at ", "[/"] {
        while let Some((before, after)) = line.split_once(place) {
            let Some((_, words)) = after.split_once("] ") else { break };
            line = format!("{before}{words}");
        }
    }
    line.trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_libtorchs_sources_are_taken_out_of_its_messages() {
        for (said, told) in [
            (
                "Gloo failed with [/pytorch/gloo/pair.cc:152] timed out: refused, remote=[127.0.0.1]:3.\nmore",
                "Gloo failed with timed out: refused, remote=[127.0.0.1]:3",
            ),
            (
                "[enforce fail at /pytorch/gloo/device.cc:84] ifa != nullptr. Unable to find address for: nope0",
                "ifa != nullptr. Unable to find address for: nope0",
            ),
        ] {
            assert_eq!(plain(&anyhow::anyhow!(said)), told);
        }
    }
}
