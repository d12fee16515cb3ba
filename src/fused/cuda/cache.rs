//! Compiled kernels in files, so that a machine compiles them once. A cache that cannot be read or written costs a
//! second.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// A folder of compiled kernels.
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// `$XDG_CACHE_HOME/ntm`, or `~/.cache/ntm`; no cache where neither is known.
    pub fn of_user() -> Cache {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Cache { folder: caches.map(|caches| caches.join("ntm")) }
    }

    /// The code that belongs to a key, from a whole file, or made and kept.
    pub fn get<E>(&self, key: &str, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let Some(folder) = &self.folder else { return make() };
        let file = file_of(folder, key);
        if let Some(code) = fs::read(&file).ok().and_then(|file| whole(file, key)) {
            return Ok(code);
        }
        let code = make()?;
        let _ = write(folder, &file, key, &code); // without it the next run compiles again
        Ok(code)
    }

    /// Forgets the code of a key.
    pub fn forget(&self, key: &str) {
        if let Some(folder) = &self.folder {
            let _ = fs::remove_file(file_of(folder, key)); // which may not be there
        }
    }
}

fn file_of(folder: &Path, key: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    folder.join(format!("kernels-{:016x}", hasher.finish()))
}

/// A file is a checksum of key and code, 4 bytes, then the code. None if it is broken, or another key's.
fn whole(file: Vec<u8>, key: &str) -> Option<Vec<u8>> {
    let (sum, code) = file.split_first_chunk::<4>()?;
    (checksum(key, code) == u32::from_le_bytes(*sum)).then(|| code.to_vec())
}

fn checksum(key: &str, code: &[u8]) -> u32 {
    crc32fast::hash(&[key.as_bytes(), code].concat())
}

/// Writes another file and renames it, so that readers see all or nothing.
fn write(folder: &Path, file: &Path, key: &str, code: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let unfinished = file.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
    let written = fs::write(&unfinished, [&checksum(key, code).to_le_bytes()[..], code].concat());
    written.and_then(|()| fs::rename(&unfinished, file)).inspect_err(|_| {
        let _ = fs::remove_file(&unfinished); // a full disk may have left half of it
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(folder: &Path) -> Cache {
        Cache { folder: Some(folder.to_path_buf()) }
    }

    #[test]
    fn code_is_made_once_a_key_and_again_when_its_file_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let cache = at(&folder.path().join("new"));
        let mut made = 0;
        let mut get = |key: &str| {
            let make = || {
                made += 1;
                Ok::<_, ()>(format!("code of {key}").into_bytes())
            };
            (cache.get(key, make).unwrap(), made)
        };
        assert_eq!(get("a"), (b"code of a".to_vec(), 1));
        assert_eq!(get("a"), (b"code of a".to_vec(), 1));
        assert_eq!(get("b"), (b"code of b".to_vec(), 2));
        for file in fs::read_dir(folder.path().join("new")).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes.pop();
            fs::write(&path, bytes).unwrap();
        }
        assert_eq!(get("a"), (b"code of a".to_vec(), 3));
        assert_eq!(get("a"), (b"code of a".to_vec(), 3));
        cache.forget("a");
        let make = || Ok::<_, ()>(vec![1]);
        assert_eq!(cache.get("a", make), Ok(vec![1]));
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 2, "no unfinished files stay");
    }

    #[test]
    fn a_file_of_another_key_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        at(folder.path()).get("a", || Ok::<_, ()>(vec![1])).unwrap();
        fs::rename(file_of(folder.path(), "a"), file_of(folder.path(), "b")).unwrap(); // as if their hashes were alike
        assert_eq!(at(folder.path()).get("b", || Ok::<_, ()>(vec![2])), Ok(vec![2]));
    }

    #[test]
    fn a_cache_that_cannot_be_written_still_gives_the_code() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a file, no folder");
        fs::write(&file, "").unwrap();
        assert_eq!(at(&file).get("a", || Ok::<_, ()>(vec![1])), Ok(vec![1]));
    }

    #[test]
    fn a_write_that_fails_leaves_no_unfinished_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(file_of(folder.path(), "a")).unwrap(); // which no file can replace
        assert_eq!(at(folder.path()).get("a", || Ok::<_, ()>(vec![1])), Ok(vec![1]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
