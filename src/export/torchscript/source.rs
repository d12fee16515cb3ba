//! The methods of each module as TorchScript source: the machine of `crate::model` once more, all heads side by side.
//! (TorchScript's source knows no types but its own, no loop over modules, and reaches a module named `0` by
//! `getattr`.)

use super::super::state_names;
use crate::model::{
    Activation, CONSTANT_MEMORY, Config, ControllerConfig, MemoryStart, NtmConfig, SHARPEN_EPSILON, WeightingStart,
};
use crate::ops::COSINE_EPSILON;

/// The path of each module that has methods, "" being the root, and their source.
pub fn sources(config: &Config) -> Vec<(&'static str, String)> {
    let state = state_names(config).join(", ");
    let types = format!("Tuple[{}]", vec!["Tensor"; state_names(config).len()].join(", "));
    let linear = "def forward(self, x: Tensor) -> Tensor:\n    return torch.linear(x, self.weight, self.bias)\n";
    let mut sources = vec![("output", linear.to_string())];
    let step = match config {
        Config::Lstm(layers) => {
            sources.extend([("lstm", lstm(layers.layers)), ("init", init(&types, LSTM_START.to_string()))]);
            baseline_step(&types)
        }
        Config::Ntm(config) => {
            let layers = config.controller.layers().layers;
            let (controller, call) = match config.controller {
                ControllerConfig::Lstm(_) => {
                    (lstm(layers), "hidden, cell = self.controller.forward(seen, hidden, cell)\n    h = hidden[-1]")
                }
                ControllerConfig::Feedforward(_) => (feedforward(layers), "h = self.controller.forward(seen)"),
            };
            sources.extend([
                ("controller", controller),
                ("heads.read", heads(config.read_heads)),
                ("heads.write", heads(config.write_heads)),
                ("init", init(&types, ntm_start(config))),
            ]);
            address(config) + &ntm_step(config, &state, &types, call)
        }
    };
    sources.push(("", step + &whole(&types)));
    sources
}

/// `forward` over a sequence, and the first state as a method (the module `init` itself is out of reach from Rust).
fn whole(types: &str) -> String {
    format!(
        "
def start(self, size: int) -> {types}:
    return self.init.forward(size)

def forward(self, inputs: Tensor) -> Tensor:
    # inputs (T, B, X) -> logits (T, B, Y)
    state = self.init.forward(inputs.size(1))
    logits: List[Tensor] = []
    for t in range(inputs.size(0)):
        y, state = self.step(inputs[t], state)
        logits.append(y)
    return torch.stack(logits)
"
    )
}

fn baseline_step(types: &str) -> String {
    format!(
        "
def step(self, x: Tensor, state: {types}) -> Tuple[Tensor, {types}]:
    # x (B, X) -> logits (B, Y), and the next state
    hidden, cell = self.lstm.forward(x, state[0], state[1])
    return self.output.forward(hidden[-1]), (hidden, cell)
"
    )
}

/// Stacked LSTM layers.
fn lstm(layers: usize) -> String {
    let cell =
        |l| format!("        [self.weight_ih_l{l}, self.weight_hh_l{l}, self.bias_ih_l{l}, self.bias_hh_l{l}],\n");
    let cells: String = (0..layers).map(cell).collect();
    format!(
        "
def forward(self, x: Tensor, prev_hidden: Tensor, prev_cell: Tensor) -> Tuple[Tensor, Tensor]:
    # x (B, inputs), states (L, B, H)
    cells = [
{cells}    ]
    hidden: List[Tensor] = []
    cell: List[Tensor] = []
    for layer in range({layers}):
        w = cells[layer]
        x, c = torch.lstm_cell(x, [prev_hidden[layer], prev_cell[layer]], w[0], w[1], w[2], w[3])
        hidden.append(x)
        cell.append(c)
    return torch.stack(hidden), torch.stack(cell)
"
    )
}

/// Weight and bias of the Linears `0`, `1`, ... of a module.
fn linears(count: usize) -> String {
    let linear = |i| format!("        [getattr(self, \"{i}\").weight, getattr(self, \"{i}\").bias],\n");
    (0..count).map(linear).collect()
}

fn feedforward(layers: usize) -> String {
    format!(
        "
def forward(self, x: Tensor) -> Tensor:
    layers = [
{}    ]
    for w in layers:
        x = torch.tanh(torch.linear(x, w[0], w[1]))
    return x
",
        linears(layers)
    )
}

/// What all read heads, or all write heads, emit.
fn heads(count: usize) -> String {
    format!(
        "
def forward(self, h: Tensor) -> Tensor:
    # h (B, H) -> (B, heads, width)
    heads = [
{}    ]
    raw: List[Tensor] = []
    for w in heads:
        raw.append(torch.linear(h, w[0], w[1]))
    return torch.stack(raw, 1)
",
        linears(count)
    )
}

/// The first state; `values` are expressions over the tensors of `init`.
fn init(types: &str, values: String) -> String {
    format!("\ndef forward(self, size: int) -> {types}:\n    return ({values})\n")
}

const LSTM_START: &str =
    "self.hidden.unsqueeze(1).expand([-1, size, -1]), self.cell.unsqueeze(1).expand([-1, size, -1])";

fn ntm_start(config: &NtmConfig) -> String {
    let (rows, width, heads) = (config.memory.rows, config.memory.width, config.heads());
    let memory = match config.init.memory {
        MemoryStart::Constant => format!("self.read.new_full([{rows}, {width}], {CONSTANT_MEMORY:e})"),
        MemoryStart::Learned | MemoryStart::Random => "self.memory".to_string(),
    };
    let weighting = match config.init.weighting {
        WeightingStart::Learned | WeightingStart::LearnedRandom => "torch.softmax(self.weighting, 1)".to_string(),
        WeightingStart::OneHot => format!("torch.eye(1, {rows}).to(self.read).expand([{heads}, -1])"),
        WeightingStart::Uniform => format!("self.read.new_full([{heads}, {rows}], 1.0 / {rows})"),
    };
    let shared = [memory.as_str(), &weighting, "self.read"].map(|value| format!("{value}.expand([size, -1, -1])"));
    match config.controller {
        ControllerConfig::Lstm(_) => format!("{LSTM_START}, {}", shared.join(", ")),
        ControllerConfig::Feedforward(_) => shared.join(", "),
    }
}

/// All heads' weightings.
fn address(config: &NtmConfig) -> String {
    let (width, shifts) = (config.memory.width, config.shift_range);
    let half = shifts / 2;
    let key = activated("key", config.activation.key);
    format!(
        "
def address(self, raw: Tensor, memory: Tensor, prev_weighting: Tensor) -> Tensor:
    # raw (B, heads, M + 3 + S), memory (B, N, M), prev_weighting (B, heads, N) -> weighting (B, heads, N)
    key, strength, gate, shift, sharpening = torch.split(raw, [{width}, 1, 1, {shifts}, 1], 2)
    key = {key}
    # Eq. 6: cosine similarity
    key_norm = torch.sqrt((key * key).sum(2, keepdim=True) + {COSINE_EPSILON:e})
    row_norm = torch.sqrt((memory * memory).sum(2) + {COSINE_EPSILON:e}).unsqueeze(1)
    similarity = torch.matmul(key, memory.transpose(1, 2)) / (key_norm * row_norm)
    # Eq. 5: content
    content = torch.softmax(torch.softplus(strength) * similarity, 2)
    # Eq. 7: interpolation
    gate = torch.sigmoid(gate)
    gated = gate * content + (1.0 - gate) * prev_weighting
    # Eq. 8: circular convolution
    shift = torch.softmax(shift, 2)
    shifted = torch.zeros_like(gated)
    for k in range({shifts}):
        shifted = shifted + shift[:, :, k:k + 1] * torch.roll(gated, [{half} - k], [2])
    # Eq. 9: sharpening
    return torch.softmax((1.0 + torch.softplus(sharpening)) * torch.log(shifted + {SHARPEN_EPSILON:e}), 2)
"
    )
}

fn ntm_step(config: &NtmConfig, state: &str, types: &str, controller: &str) -> String {
    // `controller`, `shift_range` and `init` are other functions': a field that comes new must be some function's
    let NtmConfig {
        controller: _,
        memory,
        read_heads: reads,
        write_heads: writes,
        shift_range: _,
        activation,
        init: _,
    } = config;
    let width = memory.width;
    let addressing = config.emitted().reading();
    let add = activated("add", activation.add);
    format!(
        "
def step(self, x: Tensor, state: {types}) -> Tuple[Tensor, {types}]:
    # x (B, X) -> logits (B, Y), and the next state: memory (B, N, M), weighting (B, R + W, N), read (B, R, M)
    {state} = state
    seen = torch.cat([x, read.flatten(1)], 1)
    {controller}
    raw, erase, add = torch.split(self.heads.write.forward(h), [{addressing}, {width}, {width}], 2)
    weighting = self.address(torch.cat([self.heads.read.forward(h), raw], 1), memory, weighting)
    # Eq. 2: read
    read = torch.matmul(weighting[:, :{reads}], memory)
    # Eq. 3, 4: write, one head after the other
    erase = torch.sigmoid(erase)
    add = {add}
    for head in range({writes}):
        w = weighting[:, {reads} + head].unsqueeze(2)
        memory = memory * (1.0 - w * erase[:, head].unsqueeze(1)) + w * add[:, head].unsqueeze(1)
    return self.output.forward(torch.cat([h, read.flatten(1)], 1)), ({state})
"
    )
}

fn activated(name: &str, activation: Activation) -> String {
    match activation {
        Activation::Linear => name.to_string(),
        Activation::Tanh => format!("torch.tanh({name})"),
    }
}
