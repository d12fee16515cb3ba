//! NVRTC, CUDA's compiler as a library: found at run time, so that the binary starts without it.

use super::kernels::{Sizes, source};
use anyhow::{Context, Result, bail};
use cudarc::nvrtc::{result, sys};
use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Its two files, as PyPI's wheels have them; the first one must be there when the second one looks for it.
const FILES: [&str; 2] = ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"];

/// Opens NVRTC: the one of `folder`, else the one that libtorch has beside it, else the system's. Later calls do nothing.
pub fn open(folder: Option<&Path>) -> Result<()> {
    static OPENED: OnceLock<bool> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        if let Some(folder) = folder.map(Path::to_path_buf).or_else(beside_libtorch) {
            for file in FILES.map(|file| folder.join(file)) {
                if let Ok(path) = CString::new(file.into_os_string().into_encoded_bytes()) {
                    // SAFETY: a C string; where there is no such file, null, and the system's is looked for.
                    unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
                }
            }
        }
        // SAFETY: it opens libraries by NVRTC's names.
        unsafe { sys::is_culib_present() }
    });
    if !opened {
        bail!(
            "NVRTC (libnvrtc.so.13) is not installed\nhint: `pip install nvidia-cuda-nvrtc` into libtorch's environment"
        );
    }
    Ok(())
}

/// Where PyPI's wheels put NVRTC, from where libtorch is.
fn beside_libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let libtorch = maps.lines().find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let packages = Path::new(&libtorch[libtorch.find('/')?..]).ancestors().nth(3)?; // .../torch/lib/libtorch_cpu.so
    Some(packages.join("nvidia/cu13/lib"))
}

/// The options for machines of these sizes on cards of an architecture, `sm_90` for instance; and those of the environment, for
/// who looks into the kernels: NTM_NVRTC_OPTIONS, with spaces between them.
pub fn options(sizes: &Sizes, architecture: &str) -> Vec<String> {
    let own = [
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_string(),
        "--generate-line-info".to_string(), // for profilers; the code is the same
        format!("-DNTM_SIZES={}", sizes.constants()),
        format!("-DNTM_ROWS={}", sizes.n),
        format!("-DNTM_THREADS={}", sizes.threads),
        format!("-DNTM_BLOCKS={}", sizes.blocks),
    ];
    let more = std::env::var("NTM_NVRTC_OPTIONS").unwrap_or_default();
    own.into_iter().chain(more.split_whitespace().map(str::to_string)).collect()
}

/// NVRTC's version, which another compiled code may come from.
pub fn version() -> Result<(i32, i32)> {
    open(None)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is open, and it writes two numbers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor).result()? };
    Ok((major, minor))
}

/// The kernels as machine code for an `sm_` architecture, or as PTX for a `compute_` one. Also what the compiler said.
pub fn compile(options: &[String]) -> Result<(Vec<u8>, String)> {
    open(None)?;
    let text = CString::new(source())?;
    let program = Program(result::create_program(&text, Some(c"ntm.cu"))?);
    // SAFETY: the program is alive.
    let compiled = unsafe { result::compile_program(program.0, options) };
    // SAFETY: as above.
    let log = unsafe { result::get_program_log(program.0) }.map(|log| text_of(&log)).unwrap_or_default();
    compiled.with_context(|| format!("NVRTC refuses the kernels with {}:\n{log}", options.join(" ")))?;
    let is_ptx = options.iter().any(|option| option.contains("=compute_"));
    let mut size = 0;
    // SAFETY: the program has been compiled; the buffer has the size that the library asks for.
    let code = unsafe {
        if is_ptx {
            result::get_ptx(program.0)?.into_iter().map(|byte| byte as u8).collect()
        } else {
            sys::nvrtcGetCUBINSize(program.0, &mut size).result()?;
            let mut code = vec![0_u8; size];
            sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()).result()?;
            code
        }
    };
    Ok((code, log))
}

/// A C string as the library fills it in, with its 0.
fn text_of(log: &[c_char]) -> String {
    let bytes: Vec<u8> = log.iter().map(|&byte| byte as u8).collect();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_string()
}

struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was made by `create_program` and is destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}
