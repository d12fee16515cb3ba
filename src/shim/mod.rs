//! What libtorch can do and torch-sys does not bind: a C++ file and a Rust file a subject. build.rs compiles the C++.

mod script;

pub use script::Script;
