//! NVRTC, CUDA's compiler as a library, opened by us: cudarc would take the first `libnvrtc.so` that the system knows,
//! of whatever version, before the one that came with libtorch.

use crate::device;
use anyhow::{Context, Result, bail};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

type Program = *mut c_void;

/// The functions of an open library, by the names that NVRTC gives them. They return 0, or the number of an error.
pub struct Nvrtc {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    create_program: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile_program: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy_program: unsafe extern "C" fn(*mut Program) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    log: Output,
    ptx: Output,
    cubin: Output,
}

/// What a program has been compiled to: its size, and its bytes.
#[derive(Clone, Copy)]
struct Output {
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
}

/// NVRTC: the one of `folder`, else of libtorch's environment or beside it, else the system's. A later call gives what
/// the first one found.
pub fn open(folder: Option<&Path>) -> Result<&'static Nvrtc> {
    static FOUND: OnceLock<Option<Nvrtc>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let folders = folder.map(|folder| vec![folder.to_path_buf()]).unwrap_or_else(beside_libtorch);
        let files = folders.iter().flat_map(|folder| files_in(folder));
        files.chain(NAMES.map(PathBuf::from)).find_map(|file| Nvrtc::load(&file))
    });
    found.as_ref().context(
        "NVRTC (libnvrtc.so.13) is not installed\nhint: `pip install nvidia-cuda-nvrtc` into libtorch's environment",
    )
}

/// Its plain names, the newest first.
const NAMES: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// Those that a folder has. An unpacked libtorch has a checksum in the name.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let with_checksum = |file: &PathBuf| {
        let name = file.file_name().map_or(String::new(), |name| name.to_string_lossy().to_string());
        let rest = name.strip_prefix("libnvrtc-");
        rest.is_some_and(|rest| !rest.starts_with("builtins") && rest.contains(".so"))
    };
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut others: Vec<PathBuf> = all.filter(with_checksum).collect();
    others.sort();
    NAMES.map(|name| folder.join(name)).into_iter().filter(|file| file.exists()).chain(others).collect()
}

/// Where wheels of CUDA 13 and 12 put NVRTC, and an unpacked libtorch, from where libtorch is.
fn beside_libtorch() -> Vec<PathBuf> {
    let found = || {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let line = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
        let own = Path::new(&line[line.find('/')?..]).parent()?; // torch/lib
        let packages = own.ancestors().nth(2)?;
        let wheels = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"].map(|folder| packages.join(folder));
        Some(wheels.into_iter().chain([own.to_path_buf()]).collect())
    };
    found().unwrap_or_default()
}

impl Nvrtc {
    /// None where the file is no NVRTC that can be opened.
    fn load(file: &Path) -> Option<Nvrtc> {
        // its other file must be open when it looks for it: not all of them know where it lies
        if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
            let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            let builtins = |file: &PathBuf| {
                file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc-builtins.so"))
            };
            files.filter(builtins).for_each(|file| _ = open_library(&file));
        }
        let library = open_library(file)?;
        // SAFETY: the types are those of nvrtc.h, which have been the same since CUDA 11.
        unsafe {
            let output = |size, get| Some(Output { size: symbol(library, size)?, get: symbol(library, get)? });
            Some(Nvrtc {
                version: symbol(library, c"nvrtcVersion")?,
                create_program: symbol(library, c"nvrtcCreateProgram")?,
                compile_program: symbol(library, c"nvrtcCompileProgram")?,
                destroy_program: symbol(library, c"nvrtcDestroyProgram")?,
                error_string: symbol(library, c"nvrtcGetErrorString")?,
                log: output(c"nvrtcGetProgramLogSize", c"nvrtcGetProgramLog")?,
                ptx: output(c"nvrtcGetPTXSize", c"nvrtcGetPTX")?,
                cubin: output(c"nvrtcGetCUBINSize", c"nvrtcGetCUBIN")?,
            })
        }
    }

    /// Another version may make other code of the same source.
    pub fn version(&self) -> Result<(i32, i32)> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: it writes two numbers.
        self.check(unsafe { (self.version)(&mut major, &mut minor) })?;
        Ok((major, minor))
    }

    /// Source compiled by these options, to PTX or to machine code. Also what the compiler said.
    pub fn compile(&self, source: &str, options: &[String], to_ptx: bool) -> Result<(Vec<u8>, String)> {
        let (source, mut program) = (CString::new(source)?, std::ptr::null_mut());
        let options =
            options.iter().map(|option| CString::new(option.as_str())).collect::<Result<Vec<CString>, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let none: *const *const c_char = std::ptr::null();
        // SAFETY: C strings that live on, and no headers; the program is destroyed once, when `_destroyed` goes.
        unsafe {
            let created = (self.create_program)(&mut program, source.as_ptr(), c"ntm.cu".as_ptr(), 0, none, none);
            self.check(created)?;
            let _destroyed = Destroyed(self, program);
            let compiled = (self.compile_program)(program, pointers.len() as c_int, pointers.as_ptr());
            let log = self.output(program, self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
            self.check(compiled).with_context(|| log.clone())?;
            Ok((self.output(program, if to_ptx { self.ptx } else { self.cubin })?, log))
        }
    }

    /// SAFETY: the program is alive.
    unsafe fn output(&self, program: Program, of: Output) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: it writes a number, and then as many bytes.
        unsafe {
            self.check((of.size)(program, &mut size))?;
            let mut bytes = vec![0_u8; size];
            self.check((of.get)(program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }

    fn check(&self, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: it returns a C string that lives as long as the library.
        let words = unsafe { CStr::from_ptr((self.error_string)(code)) };
        bail!("{}", words.to_string_lossy())
    }
}

struct Destroyed<'a>(&'a Nvrtc, Program);

impl Drop for Destroyed<'_> {
    fn drop(&mut self) {
        // SAFETY: see `compile`.
        let _ = unsafe { (self.0.destroy_program)(&mut self.1) };
    }
}

fn open_library(file: &Path) -> Option<*mut c_void> {
    device::open_library(&CString::new(file.as_os_str().as_encoded_bytes()).ok()?)
}

/// SAFETY: the library is open, and F is the type of that function.
unsafe fn symbol<F: Copy>(library: *mut c_void, name: &CStr) -> Option<F> {
    assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
    // SAFETY: as above.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    // SAFETY: a function's address, of the size of one.
    (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_their_plain_names_and_by_those_with_a_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            "libnvrtc-b51b459d.so.12",
            "libnvrtc-builtins.so.12.1",
            "libnvrtc.so",
            "libnvrtc.so.13",
            "libnvrtc.alt.so.13",
        ];
        files.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        let found = files_in(folder.path());
        let names: Vec<_> = found.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["libnvrtc.so.13", "libnvrtc.so", "libnvrtc-b51b459d.so.12"]);
        assert!(files_in(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn a_library_without_nvrtcs_functions_is_passed_over() {
        assert!(Nvrtc::load(Path::new("libc.so.6")).is_none());
        assert!(Nvrtc::load(Path::new("/nowhere/libnvrtc.so.13")).is_none());
    }
}
