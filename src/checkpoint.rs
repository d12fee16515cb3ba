//! A checkpoint: one safetensors file with the weights, the optimizer's state, the recipe and the progress.
//! `checkpoints/README.md` describes the format.

mod header;

use crate::config::Recipe;
use crate::files::write_atomically;
use crate::progress::Progress;
use anyhow::{Context, Result, anyhow, bail};
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

pub const FORMAT: &str = "ntm/1";

#[derive(Debug, PartialEq)]
pub struct Checkpoint {
    pub recipe: Recipe,
    pub progress: Progress,
    /// All weights, in the order of the recipe's layout: those of the machine, which may be an average.
    pub theta: Vec<f32>,
    /// What training goes on from beside them: `Training::vectors`, each of theta's length.
    pub optimizer: Vec<(String, Vec<f32>)>,
}

impl Checkpoint {
    /// Whether all sequences of its recipe have been seen, or it is solved and its recipe stops there.
    pub fn finished(&self) -> bool {
        self.progress.finished(&self.recipe)
    }

    /// Whether it has been finished and all that is due at its end done.
    pub fn ended(&self) -> bool {
        self.finished() && self.progress.closing.is_none()
    }

    /// Takes a recipe to go on with. One whose total has been seen is to end the run.
    pub fn go_on_as(&mut self, recipe: Recipe) {
        let ended = self.ended();
        let before = self.progress.closing.unwrap_or(self.recipe.training.sequences);
        self.recipe = recipe;
        self.progress.closing = (!ended && self.finished()).then_some(before);
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomically(path, &self.to_bytes()?)
    }

    /// The bytes of its file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (recipe, progress) = (serde_json::to_string(&self.recipe)?, serde_json::to_string(&self.progress)?);
        let layout = self.recipe.layout();
        let mut tensors: Vec<(String, Vec<usize>, &[u8])> = vec![];
        for parameter in &layout.parameters {
            tensors.push((
                format!("model.{}", parameter.name),
                parameter.shape.clone(),
                bytes(&self.theta[parameter.range()]),
            ));
        }
        for (name, values) in &self.optimizer {
            tensors.push((format!("optimizer.{name}"), vec![values.len()], bytes(values)));
        }
        sealed(&recipe, &progress, &tensors)
    }

    /// Reads a checkpoint and checks that every tensor its recipe needs is there, with its shape, and no other.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        Checkpoint::of_file(path, &Checkpoint::read(path)?)
    }

    /// The bytes of a checkpoint's file, for `of_file` here or in another process.
    pub fn read(path: &Path) -> Result<Vec<u8>> {
        fs::read(path).with_context(|| format!("cannot read checkpoint `{}`", path.display()))
    }

    /// The checkpoint that the bytes of a file hold; errors name the file.
    pub fn of_file(path: &Path, data: &[u8]) -> Result<Checkpoint> {
        Checkpoint::parse(data).with_context(|| not_usable(path))
    }

    /// The checkpoint that some bytes hold, checked as `load` does.
    pub fn parse(data: &[u8]) -> Result<Checkpoint> {
        let metadata = header::metadata(data)?;
        let checksums = checksums_in(&metadata)?;
        let recipe = Recipe::parse(text_in(&metadata, "recipe", &checksums)?, &[]).context("in its recipe")?;
        let progress = text_in(&metadata, "progress", &checksums)?;
        let progress: Progress = serde_json::from_str(progress).context("in its progress")?;
        progress.check(&recipe)?;
        let layout = recipe.layout();
        if layout.size() > data.len() / 4 {
            let (weights, bytes) = (layout.size(), data.len());
            bail!("its recipe has {weights} weights, more than a file of {bytes} bytes holds"); // before they are allocated
        }
        let file = SafeTensors::deserialize(data)?;
        let mut theta = Vec::with_capacity(layout.size());
        let mut known = vec![];
        for parameter in &layout.parameters {
            let name = format!("model.{}", parameter.name);
            theta.extend(values(&file, &name, &parameter.shape, &checksums)?);
            known.push(name);
        }
        let mut optimizer = vec![];
        for name in recipe.training.vectors() {
            let tensor = format!("optimizer.{name}");
            optimizer.push((name.to_string(), values(&file, &tensor, &[layout.size()], &checksums)?));
            known.push(tensor);
        }
        if let Some(unknown) = file.names().into_iter().find(|name| !known.contains(name)) {
            bail!("it holds a tensor `{unknown}` that its recipe does not have");
        }
        Ok(Checkpoint { recipe, progress, theta, optimizer })
    }
}

fn not_usable(path: &Path) -> String {
    format!("`{}` is not a usable checkpoint", path.display())
}

fn field<'a>(metadata: &'a HashMap<String, String>, name: &str) -> Result<&'a str> {
    Ok(metadata.get(name).with_context(|| format!("its metadata has no `{name}`"))?)
}

/// One of the texts that have a checksum, which must be right.
fn text_in<'a>(metadata: &'a HashMap<String, String>, name: &str, checksums: &HashMap<String, u32>) -> Result<&'a str> {
    let text = field(metadata, name)?;
    check_sum(name, text.as_bytes(), checksums)?;
    Ok(text)
}

fn checksums_in(metadata: &HashMap<String, String>) -> Result<HashMap<String, u32>> {
    serde_json::from_str(field(metadata, "checksums")?).context("in its checksums")
}

fn check_sum(name: &str, data: &[u8], checksums: &HashMap<String, u32>) -> Result<()> {
    match checksums.get(name) {
        None => bail!("it has no checksum of `{name}`\nhint: an earlier version of ntm wrote it; use that one"),
        Some(sum) if *sum != crc32fast::hash(data) => {
            bail!("`{name}` is damaged: it is not what was written\nhint: use another checkpoint of the run")
        }
        Some(_) => Ok(()),
    }
}

/// The values of one tensor, whose type, shape and checksum must be as expected.
fn values(file: &SafeTensors, name: &str, shape: &[usize], checksums: &HashMap<String, u32>) -> Result<Vec<f32>> {
    let tensor = file.tensor(name).map_err(|_| anyhow!("tensor `{name}` is missing"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        bail!("tensor `{name}` is {:?} {:?}, its recipe needs F32 {shape:?}", tensor.dtype(), tensor.shape());
    }
    check_sum(name, tensor.data(), checksums)?;
    let values: Vec<f32> =
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        bail!("tensor `{name}` holds {} at element {at}", values[at]);
    }
    Ok(values)
}

/// The bytes of a checkpoint with these parts.
fn sealed(recipe: &str, progress: &str, tensors: &[(String, Vec<usize>, &[u8])]) -> Result<Vec<u8>> {
    let texts = [("recipe", recipe.as_bytes()), ("progress", progress.as_bytes())];
    let parts = texts.into_iter().chain(tensors.iter().map(|(name, _, data)| (name.as_str(), *data)));
    let checksums: BTreeMap<&str, u32> = parts.map(|(name, data)| (name, crc32fast::hash(data))).collect();
    let checksums = serde_json::to_string(&checksums)?;
    let metadata = [("format", FORMAT), ("recipe", recipe), ("progress", progress), ("checksums", &checksums)];
    Ok(safetensors_bytes(tensors, &metadata))
}

/// The safetensors file of named f32 tensors (shape, bytes), the same bytes for the same contents: the library's own
/// writer shuffles the metadata.
pub fn safetensors_bytes(tensors: &[(String, Vec<usize>, &[u8])], metadata: &[(&str, &str)]) -> Vec<u8> {
    let metadata: Map<String, Value> = metadata.iter().map(|&(name, text)| (name.to_string(), text.into())).collect();
    let mut header = Map::from_iter([("__metadata__".to_string(), metadata.into())]);
    let mut end = 0;
    for (name, shape, data) in tensors {
        let offsets = [end, end + data.len()];
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }));
        end = offsets[1];
    }
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' '); // so that the values are aligned
    let length = (header.len() as u64).to_le_bytes();
    let values = tensors.iter().map(|(.., data)| *data);
    [&length[..], &header].into_iter().chain(values).collect::<Vec<_>>().concat()
}

/// The bytes of f32 values in the file's order, little endian.
pub fn bytes(values: &[f32]) -> &[u8] {
    const { assert!(cfg!(target_endian = "little"), "checkpoints are written as the machine stores f32") };
    // SAFETY: any f32 is four initialised bytes, and u8 has no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let text = r#"{"model": {"memory": {"rows": 4, "width": 2}, "controller": {"hidden": 3}}}"#;
        let recipe = Recipe::parse(text, &[]).unwrap();
        let theta = recipe.layout().initial_theta(1);
        let optimizer =
            ["mean_square", "mean", "delta"].map(|name| (name.to_string(), vec![0.1; theta.len()])).to_vec();
        let progress = Progress { step: 7, seconds: 0.1 + 0.2, ..Progress::default() };
        Checkpoint { recipe, progress, theta, optimizer }
    }

    fn saved() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("latest.safetensors");
        checkpoint().save(&path).unwrap();
        (directory, path)
    }

    #[test]
    fn a_checkpoint_comes_back_bit_for_bit_and_leaves_no_other_file() {
        let (directory, path) = saved();
        assert_eq!(Checkpoint::load(&path).unwrap(), checkpoint());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_truncation_is_an_error_that_names_the_file() {
        let (_directory, path) = saved();
        let data = fs::read(&path).unwrap();
        for length in 0..data.len() {
            let error = format!("{:#}", Checkpoint::parse(&data[..length]).expect_err("cut short"));
            assert!(error.contains("it is truncated, or not a safetensors file"), "{length}: {error}");
        }
        fs::write(&path, &data[..data.len() - 1]).unwrap();
        let error = format!("{:#}", Checkpoint::load(&path).expect_err("cut short"));
        assert!(error.contains("latest.safetensors` is not a usable checkpoint"), "{error}");
    }

    #[test]
    fn every_flipped_bit_of_a_tensor_is_found_and_the_tensor_named() {
        let (_directory, path) = saved();
        let mut data = fs::read(&path).unwrap();
        let start = 8 + u64::from_le_bytes(*data.first_chunk().unwrap()) as usize;
        for byte in start..data.len() {
            let bit = 1 << (byte % 8);
            data[byte] ^= bit;
            let error = format!("{:#}", Checkpoint::parse(&data).expect_err("a flipped bit"));
            assert!(error.contains("is damaged: it is not what was written"), "{error}");
            data[byte] ^= bit;
        }
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_found() {
        let (_directory, path) = saved();
        let mut data = fs::read(&path).unwrap();
        let start = 8 + u64::from_le_bytes(*data.first_chunk().unwrap()) as usize;
        for bit in 0..start * 8 {
            data[bit / 8] ^= 1 << (bit % 8);
            assert!(Checkpoint::parse(&data).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
            data[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// The file with the text of its header changed.
    fn with_header(data: &[u8], from: &str, to: &str) -> Vec<u8> {
        let length = u64::from_le_bytes(*data.first_chunk().unwrap()) as usize;
        let header = std::str::from_utf8(&data[8..8 + length]).unwrap();
        let changed = header.replacen(from, to, 1);
        assert_ne!(header, changed);
        [&(changed.len() as u64).to_le_bytes(), changed.as_bytes(), &data[8 + length..]].concat()
    }

    #[test]
    fn a_tensor_that_is_there_twice_a_newer_format_and_a_damaged_text_are_named() {
        let (_directory, path) = saved();
        let data = fs::read(&path).unwrap();
        let twice = r#"{"model.output.bias":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},"#;
        for (from, to, expected) in [
            ("{", twice, "in its header: `model.output.bias` appears twice"),
            ("ntm/1", "ntm/2", "its format is `ntm/2`, this program reads `ntm/1`\nhint: use the version"),
            (r#"given_up\":0"#, r#"given_up\":1"#, "`progress` is damaged: it is not what was written\nhint: "),
            (r#"min_length\":1"#, r#"min_length\":2"#, "`recipe` is damaged: it is not what was written\nhint: "),
        ] {
            let error = format!("{:#}", Checkpoint::parse(&with_header(&data, from, to)).expect_err(expected));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn impossible_progress_is_refused() {
        let impossible = |change: fn(&mut Progress), expected: &str| {
            let mut checkpoint = checkpoint();
            change(&mut checkpoint.progress);
            let error = format!("{:#}", Checkpoint::parse(&checkpoint.to_bytes().unwrap()).expect_err(expected));
            assert_eq!(error, format!("its progress is impossible: {expected}"));
        };
        impossible(
            |progress| progress.given_up = 999,
            "7 updates, 999 of them given up in 0 restarts, with 20000 from a start",
        );
        impossible(|progress| progress.rollbacks = 31, "31 rollbacks");
        impossible(|progress| progress.closing = Some(0), "it was to see 0 sequences");
    }

    #[test]
    fn the_same_checkpoint_is_the_same_bytes() {
        assert_eq!(checkpoint().to_bytes().unwrap(), checkpoint().to_bytes().unwrap());
    }

    #[test]
    fn a_recipe_with_more_weights_than_the_file_is_refused_before_anything_is_allocated() {
        let (_directory, path) = saved();
        let data = fs::read(&path).unwrap();
        let metadata = SafeTensors::read_metadata(&data).unwrap().1.metadata().clone().unwrap();
        let recipe = metadata["recipe"].replace("\"hidden\":3", "\"hidden\":65536");
        assert_ne!(recipe, metadata["recipe"]);
        let one = [("model.output.bias".to_string(), vec![1], bytes(&[0.0]))];
        let file = sealed(&recipe, &metadata["progress"], &one).unwrap();
        let error = format!("{:#}", Checkpoint::parse(&file).expect_err("too few bytes"));
        assert!(error.contains("weights, more than a file of"), "{error}");
    }

    #[test]
    fn missing_misshapen_unknown_and_non_finite_tensors_are_named() {
        let original = checkpoint();
        let (name, shape) = ("model.output.bias", vec![8]);
        type Change = fn(&mut Vec<(String, Vec<usize>, Vec<f32>)>);
        let changes: [(Change, &str); 4] = [
            (|tensors| tensors.retain(|tensor| tensor.0 != "model.output.bias"), "`model.output.bias` is missing"),
            (
                |tensors| {
                    tensors.iter_mut().for_each(|t| {
                        if t.0 == "model.output.bias" {
                            t.1 = vec![2, 4]
                        }
                    })
                },
                "is F32 [2, 4], its recipe needs F32 [8]",
            ),
            (|tensors| tensors.push(("model.extra".into(), vec![1], vec![0.0])), "a tensor `model.extra`"),
            (
                |tensors| {
                    tensors.iter_mut().for_each(|t| {
                        if t.0 == "model.output.bias" {
                            t.2[3] = f32::NAN
                        }
                    })
                },
                "`model.output.bias` holds NaN at element 3",
            ),
        ];
        for (change, expected) in changes {
            let (_directory, path) = saved();
            let data = fs::read(&path).unwrap();
            let metadata = SafeTensors::read_metadata(&data).unwrap().1.metadata().clone().unwrap();
            let (checksums, file) = (checksums_in(&metadata).unwrap(), SafeTensors::deserialize(&data).unwrap());
            let read = |name: &str| {
                let shape = file.tensor(name).unwrap().shape().to_vec();
                (name.to_string(), shape.clone(), values(&file, name, &shape, &checksums).unwrap())
            };
            let mut tensors: Vec<_> = file.names().into_iter().map(|name| read(name)).collect();
            assert!(tensors.iter().any(|tensor| tensor.0 == name && tensor.1 == shape));
            change(&mut tensors);
            let views: Vec<_> =
                tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), bytes(values))).collect();
            let file = sealed(&metadata["recipe"], &metadata["progress"], &views).unwrap();
            let error = format!("{:#}", Checkpoint::parse(&file).expect_err(expected));
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(original.recipe.layout().get("output.bias").shape, shape);
    }
}
