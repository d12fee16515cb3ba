//! Three things: the path of libtorch in every binary and test (an rpath), so that nothing needs LD_LIBRARY_PATH;
//! the C++ of src/shim; and the list of the recipes in tasks/, which the binary contains.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let lib = env::var("DEP_TCH_LIBTORCH_LIB")
        .expect("torch-sys did not say where libtorch is; run `make setup`, or set LIBTORCH to a libtorch 2.11 folder");
    println!("cargo:rustc-link-search=native={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/../../.libtorch/lib"); // of a clone that has moved

    for source in ["script.cpp", "c10d.cpp", "nccl.cpp", "caught.h", "gloo"] {
        println!("cargo:rerun-if-changed=src/shim/{source}");
    }
    let include = Path::new(&lib).with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .includes([&include, &include.join("torch/csrc/api/include"), Path::new("src/shim/gloo")])
        .define("USE_C10D_GLOO", None)
        .warnings(false) // libtorch's headers have some
        .files(["src/shim/script.cpp", "src/shim/c10d.cpp"])
        .compile("ntm_shim");

    let nccl = match nccl_library(Path::new(&lib), &include) {
        Some(path) => format!("Some(include_bytes!({path:?}))"),
        None => "None".to_string(),
    };
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let text = format!("pub const LIBRARY: Option<&[u8]> = {nccl};\n");
    fs::write(out.join("nccl.rs"), text).expect("OUT_DIR can be written");

    println!("cargo:rerun-if-changed=tasks");
    let mut files: Vec<PathBuf> =
        fs::read_dir("tasks").expect("tasks/").map(|entry| entry.expect("tasks/").path()).collect();
    files.sort_by_key(|file| file.file_stem().map(ToOwned::to_owned));
    let mut list = "pub const BUILT_IN: &[(&str, &str)] = &[\n".to_string();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        let name = file.file_stem().expect("a name").to_string_lossy();
        let path = fs::canonicalize(file).expect("it was just listed");
        list += &format!("    ({name:?}, include_str!({path:?})),\n");
    }
    fs::write(out.join("recipes.rs"), list + "];\n").expect("OUT_DIR can be written");
}

/// src/shim/nccl.cpp as a shared library, which the binary contains; none where there is no libtorch_cuda, or no NCCL
/// beside a libtorch from wheels or where CUDA is installed. If it does not compile all the same, cargo warns.
fn nccl_library(lib: &Path, include: &Path) -> Option<PathBuf> {
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let wheels = fs::canonicalize(lib).ok()?.parent()?.with_file_name("nvidia");
    let installed = env::var_os("CUDA_HOME").map_or("/usr/local/cuda".into(), PathBuf::from);
    let folders = [wheels.join("nccl/include"), installed.join("include"), "/usr/include".into()];
    if !lib.join("libtorch_cuda.so").exists() || !folders.iter().any(|folder| folder.join("nccl.h").exists()) {
        return None;
    }
    let library = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("libntm_nccl.so");
    let mut command = cc::Build::new().cpp(true).std("c++17").opt_level(1).get_compiler().to_command();
    for folder in [
        include.to_path_buf(),
        include.join("torch/csrc/api/include"),
        wheels.join("cu13/include"),
        wheels.join("nccl/include"),
        installed.join("include"),
    ] {
        command.arg("-isystem").arg(folder);
    }
    command.args(["-shared", "-fPIC", "-DUSE_C10D_NCCL", "-Wl,-z,defs", "src/shim/nccl.cpp", "-o"]).arg(&library);
    command.arg(format!("-Wl,-rpath,{}", lib.display())).arg("-L").arg(lib).args([
        "-ltorch_cuda",
        "-lc10_cuda",
        "-ltorch_cpu",
        "-lc10",
    ]);
    let compiled = command.output().expect("the compiler that has compiled the rest");
    if !compiled.status.success() {
        let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
        let first = said.lines().find(|line| line.contains("error")).unwrap_or("no word of why");
        println!(
            "cargo:warning=several processes on cards will go without NCCL, through the host: {first}; if CUDA's headers are \
             missing, remove .venv and .libtorch, then `make setup`"
        );
        return None;
    }
    Some(library)
}
