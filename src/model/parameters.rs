//! All parameters of a network as one flat vector, theta: one leaf for autograd, one vector for the optimizer, the
//! clip and the fused engine. The layout gives each named tensor its place in it.

use super::Spec;
use super::config::{
    AddressingStart, Config, ControllerConfig, KeyStart, Layers, MemoryStart, NtmConfig, WeightingStart,
};
use crate::random::{Purpose, stream};
use rand::Rng;
use rand_distr::StandardNormal;
use std::collections::HashMap;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// One named tensor of a network.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// PyTorch's name, for instance `controller.weight_ih_l0`; a checkpoint puts `model.` before it.
    pub name: String,
    pub shape: Vec<usize>,
    /// Where it starts in theta.
    pub offset: usize,
    /// False for values that are kept but not learned (a `random` memory); their gradient is 0.
    pub learned: bool,
    draw: Draw,
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug)]
enum Draw {
    Zeros,
    Normal(f32),
    /// Uniform in +-bound.
    Uniform(f32),
    /// 1 for the forget gate (the second of i, f, g, o), 0 for the others.
    ForgetBias,
    /// Logit 10 on row 0, 0 on all others.
    FocusedOnRow0,
}

/// What `init.addressing` `tape` adds to a gate's bias: the head takes 0.02 of its weighting from content, or 0.95.
const KEEP: f32 = -4.0;
const LOOK_UP: f32 = 3.0;
/// What it adds to the bias of one shift, and more the more shifts there are: that one has 0.91 of the weight.
const TAPE_SHIFT: f32 = 3.0;

impl Parameter {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its place in theta.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// Its shape, as libtorch takes one.
    pub fn dims(&self) -> Vec<i64> {
        self.shape.iter().map(|&size| size as i64).collect()
    }
}

/// What the start of theta has beyond the draws of each parameter by itself.
#[derive(Clone, Debug)]
enum Adjustment {
    /// These values again, from there on.
    Copy(Range<usize>, usize),
    /// This much more at this place.
    Raise(usize, f32),
}

/// The parameters of a network in the order of theta.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    pub parameters: Vec<Parameter>,
    adjustments: Vec<Adjustment>,
}

impl Layout {
    pub fn new(spec: Spec) -> Layout {
        let Spec { config, input_width, output_width } = spec;
        let mut layout = Layout::default();
        match config {
            Config::Ntm(ntm) => layout.ntm(ntm, input_width, output_width),
            Config::Lstm(layers) => {
                layout.lstm("lstm", *layers, input_width);
                layout.linear("output", output_width, layers.hidden, 1.0, Draw::Zeros);
            }
        }
        layout
    }

    fn ntm(&mut self, ntm: &NtmConfig, input_width: usize, output_width: usize) {
        let (rows, width) = (ntm.memory.rows, ntm.memory.width);
        let seen = input_width + ntm.read_heads * width;
        let layers = ntm.controller.layers();
        match ntm.controller {
            ControllerConfig::Lstm(_) => self.lstm("controller", layers, seen),
            ControllerConfig::Feedforward(_) => {
                for layer in 0..layers.layers {
                    let inputs = if layer == 0 { seen } else { layers.hidden };
                    self.linear(&format!("controller.{layer}"), layers.hidden, inputs, 1.0, Draw::Zeros);
                }
            }
        }
        let emitted = ntm.emitted();
        for head in 0..ntm.read_heads {
            self.linear(&format!("heads.read.{head}"), emitted.reading(), layers.hidden, 1.4, Draw::Normal(0.01));
        }
        for head in 0..ntm.write_heads {
            self.linear(&format!("heads.write.{head}"), emitted.writing(), layers.hidden, 1.4, Draw::Normal(0.01));
        }
        self.linear("output", output_width, layers.hidden + ntm.read_heads * width, 1.0, Draw::Zeros);
        self.add("init.read", &[ntm.read_heads, width], Draw::Normal(0.01));
        match ntm.init.memory {
            MemoryStart::Constant => {}
            MemoryStart::Learned => self.add("init.memory", &[rows, width], Draw::Normal(0.05)),
            MemoryStart::Random => {
                self.add("init.memory", &[rows, width], Draw::Normal(0.05));
                self.parameters.last_mut().expect("just added").learned = false;
            }
        }
        let heads = ntm.heads();
        match ntm.init.weighting {
            WeightingStart::Learned => self.add("init.weighting", &[heads, rows], Draw::FocusedOnRow0),
            WeightingStart::LearnedRandom => self.add("init.weighting", &[heads, rows], Draw::Normal(1.0)),
            WeightingStart::OneHot | WeightingStart::Uniform => {}
        }
        self.adjust_heads(ntm);
    }

    /// `init.keys`, `init.strength` and `init.addressing`, by the places of their values among a head's outputs.
    fn adjust_heads(&mut self, ntm: &NtmConfig) {
        let (hidden, at) = (ntm.controller.layers().hidden, ntm.emitted());
        let head = |kind: &str, index: usize| {
            let of = |part: &str| self.get(&format!("heads.{kind}.{index}.{part}")).offset;
            (of("weight"), of("bias"))
        };
        let tape = ntm.init.addressing == AddressingStart::Tape;
        let stay = at.shift().start + ntm.shift_range / 2;
        let on = stay - 1; // Eq. 8: of the taps, that before the middle takes row i to row i + 1
        let others = ntm.shift_range as f32 - 1.0;
        let reads = (0..ntm.read_heads).map(|index| ("read", index));
        let writes = (0..ntm.write_heads).map(|index| ("write", index));
        let mut adjustments = vec![];
        for (kind, index) in reads.chain(writes) {
            let (weight, bias) = head(kind, index);
            if ntm.init.keys == KeyStart::Aligned {
                let written_by = if tape { 0 } else { index % ntm.write_heads };
                let (from, add) = (head("write", written_by).0, at.add());
                let added = from + add.start * hidden..from + add.end * hidden;
                adjustments.push(Adjustment::Copy(added, weight + at.key().start * hidden));
            }
            adjustments.push(Adjustment::Raise(bias + at.strength(), ntm.init.strength as f32));
            if tape {
                let (gate, shift) = if (kind, index) == ("write", 0) { (KEEP, on) } else { (LOOK_UP, stay) };
                adjustments.push(Adjustment::Raise(bias + at.gate(), gate));
                adjustments.push(Adjustment::Raise(bias + shift, TAPE_SHIFT + (others / 2.0).ln()));
            }
        }
        self.adjustments = adjustments;
    }

    /// Stacked LSTM layers and their learned start, with PyTorch's names and gate order i, f, g, o.
    fn lstm(&mut self, prefix: &str, layers: Layers, input_width: usize) {
        let hidden = layers.hidden;
        let bound = Draw::Uniform(1.0 / (hidden as f32).sqrt());
        for layer in 0..layers.layers {
            let inputs = if layer == 0 { input_width } else { hidden };
            self.add(&format!("{prefix}.weight_ih_l{layer}"), &[4 * hidden, inputs], bound);
            self.add(&format!("{prefix}.weight_hh_l{layer}"), &[4 * hidden, hidden], bound);
            self.add(&format!("{prefix}.bias_ih_l{layer}"), &[4 * hidden], Draw::ForgetBias);
            self.add(&format!("{prefix}.bias_hh_l{layer}"), &[4 * hidden], Draw::Zeros);
        }
        self.add("init.hidden", &[layers.layers, hidden], Draw::Normal(0.05));
        self.add("init.cell", &[layers.layers, hidden], Draw::Normal(0.05));
    }

    /// A Linear whose weight starts Xavier uniform.
    fn linear(&mut self, prefix: &str, outputs: usize, inputs: usize, gain: f32, bias: Draw) {
        let bound = gain * (6.0 / (inputs + outputs) as f32).sqrt();
        self.add(&format!("{prefix}.weight"), &[outputs, inputs], Draw::Uniform(bound));
        self.add(&format!("{prefix}.bias"), &[outputs], bias);
    }

    fn add(&mut self, name: &str, shape: &[usize], draw: Draw) {
        let offset = self.size();
        self.parameters.push(Parameter { name: name.to_string(), shape: shape.to_vec(), offset, learned: true, draw });
    }

    /// The length of theta.
    pub fn size(&self) -> usize {
        self.parameters.last().map_or(0, |last| last.offset + last.len())
    }

    /// The parameter of a name. Panics if there is none: names are ours.
    pub fn get(&self, name: &str) -> &Parameter {
        self.find(name).unwrap_or_else(|| panic!("no parameter {name}"))
    }

    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// The parameter that holds element `index` of theta.
    pub fn at(&self, index: usize) -> &Parameter {
        &self.parameters[self.parameters.partition_point(|parameter| parameter.offset <= index) - 1]
    }

    /// The start of theta, a pure function of the seed.
    pub fn initial_theta(&self, seed: u64) -> Vec<f32> {
        self.initial_theta_of(seed, 0)
    }

    /// The start of theta after so many restarts of a run.
    pub fn initial_theta_of(&self, seed: u64, restarts: u32) -> Vec<f32> {
        let mut theta = Vec::with_capacity(self.size());
        for (index, parameter) in self.parameters.iter().enumerate() {
            let mut rng = stream(seed, Purpose::Weights, (restarts as u64) << 32 | index as u64);
            let columns = parameter.shape[parameter.shape.len() - 1];
            theta.extend((0..parameter.len()).map(|i| match parameter.draw {
                Draw::Zeros => 0.0,
                Draw::Normal(deviation) => rng.sample::<f32, _>(StandardNormal) * deviation,
                Draw::Uniform(bound) => rng.random_range(-bound..bound),
                Draw::ForgetBias => (4 * i / columns == 1) as u8 as f32,
                Draw::FocusedOnRow0 => 10.0 * (i % columns == 0) as u8 as f32,
            }));
        }
        for adjustment in &self.adjustments {
            match adjustment {
                Adjustment::Copy(from, to) => theta.copy_within(from.clone(), *to),
                Adjustment::Raise(at, by) => theta[*at] += by,
            }
        }
        theta
    }
}

/// The named views of one theta.
pub struct Parameters {
    tensors: HashMap<String, Tensor>,
    kind: Kind,
    device: Device,
}

impl Parameters {
    /// Cuts theta into its parameters; gradients of the views flow back into theta. theta (layout.size()).
    pub fn new(layout: &Layout, theta: &Tensor) -> Parameters {
        let sizes: Vec<i64> = layout.parameters.iter().map(|parameter| parameter.len() as i64).collect();
        let views = theta.split_with_sizes(&sizes, 0);
        let named = layout.parameters.iter().zip(views).map(|(parameter, view)| {
            let view = view.view(parameter.dims().as_slice());
            (parameter.name.clone(), if parameter.learned { view } else { view.detach() })
        });
        Parameters { tensors: named.collect(), kind: theta.kind(), device: theta.device() }
    }

    /// The tensor of a name. Panics if there is none: names are ours.
    pub fn get(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no parameter {name}")).shallow_clone()
    }

    /// `prefix.weight` and `prefix.bias` as a Linear.
    pub fn linear(&self, prefix: &str) -> tch::nn::Linear {
        tch::nn::Linear { ws: self.get(&format!("{prefix}.weight")), bs: Some(self.get(&format!("{prefix}.bias"))) }
    }

    pub fn options(&self) -> (Kind, Device) {
        (self.kind, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(Spec::new(&Config::kinds()[0], 9, 8))
    }

    #[test]
    fn the_notebooks_machine_has_the_weights_of_its_sizes() {
        // LSTM 400 x (29 + 100 + 2), heads 26 and 66 x 101, output 8 x 121; starts h, c 2 x 100, read 20, weightings 2
        // x 128
        assert_eq!(layout().size(), 400 * 131 + (26 + 66) * 101 + 8 * 121 + 200 + 20 + 256);
    }

    #[test]
    fn every_element_of_theta_belongs_to_the_parameter_whose_range_holds_it() {
        let layout = layout();
        for parameter in &layout.parameters {
            assert_eq!(layout.at(parameter.range().start).name, parameter.name);
            assert_eq!(layout.at(parameter.range().end - 1).name, parameter.name);
        }
    }

    #[test]
    fn aligned_keys_start_as_what_a_write_head_adds_and_strengths_are_raised() {
        let mut ntm = NtmConfig { read_heads: 3, write_heads: 2, ..NtmConfig::default() };
        ntm.init.keys = KeyStart::Independent;
        let plain = Layout::new(Spec::new(&Config::Ntm(ntm.clone()), 9, 8)).initial_theta(1);
        ntm.init.keys = KeyStart::Aligned;
        ntm.init.strength = 8.0;
        let layout = Layout::new(Spec::new(&Config::Ntm(ntm), 9, 8));
        let theta = layout.initial_theta(1);
        let rows = |theta: &[f32], name: &str, from: usize, to: usize| {
            theta[layout.get(name).range()][from * 100..to * 100].to_vec() // rows of H = 100
        };
        for (head, writer) in [("read.0", 0), ("read.1", 1), ("read.2", 0), ("write.0", 0), ("write.1", 1)] {
            let (weight, bias) = (format!("heads.{head}.weight"), format!("heads.{head}.bias"));
            // key, strength, gate, 3 shifts, sharpening, erase, add: with M = 20 the add vector is rows 46 to 65
            assert_eq!(rows(&theta, &weight, 0, 20), rows(&plain, &format!("heads.write.{writer}.weight"), 46, 66));
            assert_eq!(rows(&theta, &weight, 20, 26), rows(&plain, &weight, 20, 26), "the rest is as drawn");
            let raised = layout.get(&bias).offset + 20;
            assert_eq!(theta[raised], plain[raised] + 8.0);
            assert_eq!(theta[raised + 1..][..5], plain[raised + 1..][..5]);
        }
    }

    #[test]
    fn a_tape_starts_with_a_head_that_goes_on_and_others_that_look_up_what_it_wrote() {
        let mut ntm = NtmConfig { read_heads: 2, write_heads: 2, shift_range: 5, ..NtmConfig::default() };
        let free = Layout::new(Spec::new(&Config::Ntm(ntm.clone()), 9, 8)).initial_theta(1);
        ntm.init.addressing = AddressingStart::Tape;
        let layout = Layout::new(Spec::new(&Config::Ntm(ntm), 9, 8));
        let tape = layout.initial_theta(1);
        let range = |name: String| layout.get(&name).range();
        let written = &free[range("heads.write.0.weight".into())][48 * 100..]; // key, strength, gate, 5 shifts, sharpening, erase
        let mut same = free.clone();
        // of the taps by 2, 1, 0, -1, -2 rows, that by none or by one
        for (head, gate, shift) in [("read.0", 3.0, 2), ("read.1", 3.0, 2), ("write.0", -4.0, 1), ("write.1", 3.0, 2)] {
            let weight = range(format!("heads.{head}.weight"));
            same[weight.start..][..20 * 100].copy_from_slice(written);
            let bias = range(format!("heads.{head}.bias")).start;
            same[bias + 21] += gate;
            same[bias + 22 + shift] += 3.0 + 2.0f32.ln(); // twice as many others as of three
        }
        assert_eq!(tape, same, "and the rest is as drawn");
    }

    #[test]
    fn the_start_focuses_every_head_on_row_0_and_opens_the_forget_gates() {
        let layout = layout();
        let theta = layout.initial_theta(1);
        let weighting = &theta[layout.get("init.weighting").range()];
        assert_eq!((weighting[0], weighting[1], weighting[128], weighting[129]), (10.0, 0.0, 10.0, 0.0));
        let bias = &theta[layout.get("controller.bias_ih_l0").range()];
        assert_eq!((bias[99], bias[100], bias[199], bias[200]), (0.0, 1.0, 1.0, 0.0));
        assert_eq!(theta, layout.initial_theta(1));
        assert_ne!(theta, layout.initial_theta(2));
        assert_eq!(theta, layout.initial_theta_of(1, 0));
        assert_ne!(theta, layout.initial_theta_of(1, 1));
    }
}
