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

    for source in ["script.cpp", "c10d.cpp", "caught.h", "gloo"] {
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
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("recipes.rs");
    fs::write(out, list + "];\n").expect("OUT_DIR can be written");
}
