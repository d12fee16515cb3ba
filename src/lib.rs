//! A Neural Turing Machine to train, evaluate and export, on libtorch.
//!
//! Data flows one way: cli -> config -> task -> engine (composed | fused) -> loss -> optimizer -> checkpoint and log. A
//! batch goes from `tasks::Source` through `engine::Engine::gradient` to `optim::Optimizer::update`, in
//! `train::Trainer`; `run::Run` keeps what comes of it.

// what the user says: flags, and recipes
pub mod cli;
pub mod commands;
pub mod config;

// what a batch is made of
pub mod tasks;

// the machine: its definition in the paper's words, what an engine is, and the definition as one
pub mod composed;
pub mod engine;
pub mod model;
pub mod ops;

// the same function, fast, with a gradient derived by hand
pub mod fused;
pub mod simd;

// learning: the loop, its optimizer, what it takes, and many seeds or processes of it
pub mod distributed;
pub mod memory;
pub mod optim;
pub mod study;
pub mod train;

// what a run leaves behind, and what goes on from there
pub mod checkpoint;
pub mod lock;
pub mod metrics;
pub mod progress;
pub mod run;
pub mod tensorboard;

// what people and other programs get to see
pub mod display;
pub mod export;
pub mod plot;
pub mod replay;
pub mod terminal;

// below all of it: files, devices, random numbers, checks
pub mod device;
pub mod files;
pub mod flat;
pub mod json;
pub mod limits;
pub mod random;
pub mod shim;
