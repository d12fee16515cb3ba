//! Where the link of `make setup` points, in every target: what ntm's own build script says holds for ntm's binaries alone.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}/../.libtorch/lib", env!("CARGO_MANIFEST_DIR"));
}
