//! A Neural Turing Machine to train, evaluate and export, on libtorch.
//!
//! Data flows one way: cli -> config -> task -> engine (model | fused) -> loss -> optimizer -> checkpoint and log.

pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod config;
pub mod device;
pub mod display;
pub mod distributed;
pub mod engine;
pub mod export;
pub mod files;
pub mod flat;
pub mod fused;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod optim;
pub mod plot;
pub mod progress;
pub mod random;
pub mod replay;
pub mod run;
pub mod shim;
pub mod simd;
pub mod study;
pub mod tasks;
pub mod tensorboard;
pub mod terminal;
pub mod train;
pub mod unique;
