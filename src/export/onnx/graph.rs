//! A graph under construction. A value is an expression: arithmetic and methods on values append nodes.

use super::proto::{Attribute, Dimension, Graph as Proto, Node, Shape, Tensor, TensorType, Type, ValueInfo};
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::{Add, Div, Mul, Sub};

#[derive(Default)]
pub struct Graph {
    names: RefCell<Vec<String>>,
    nodes: RefCell<Vec<Node>>,
    constants: RefCell<Vec<Tensor>>,
}

/// What an input, a constant or an operator gives.
#[derive(Clone, Copy)]
pub struct Value<'g> {
    graph: &'g Graph,
    id: usize, // in names
}

impl Graph {
    fn value(&self, name: String) -> Value<'_> {
        let mut names = self.names.borrow_mut();
        names.push(name);
        Value { graph: self, id: names.len() - 1 }
    }

    /// A value that is given from outside: an input of the graph.
    pub fn input(&self, name: &str) -> Value<'_> {
        self.value(name.to_string())
    }

    pub fn floats(&self, name: &str, shape: &[usize], values: &[f32]) -> Value<'_> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name.to_string(), shape, Tensor::FLOAT, bytes)
    }

    pub fn ints(&self, shape: &[usize], values: &[i64]) -> Value<'_> {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(format!("ints_{}", self.names.borrow().len()), shape, Tensor::INT64, bytes)
    }

    pub fn scalar(&self, value: f64) -> Value<'_> {
        self.floats(&format!("scalar_{}", self.names.borrow().len()), &[], &[value as f32])
    }

    fn constant(&self, name: String, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> Value<'_> {
        let dims = shape.iter().map(|&size| size as i64).collect();
        self.constants.borrow_mut().push(Tensor { dims, data_type, name: name.clone(), raw_data });
        self.value(name)
    }

    /// Appends an operator with any number of outputs.
    pub fn node<'g>(
        &'g self,
        kind: &str,
        inputs: &[Value<'g>],
        attributes: Vec<Attribute>,
        outputs: usize,
    ) -> Vec<Value<'g>> {
        let first = self.names.borrow().len();
        let values: Vec<Value> = (first..first + outputs).map(|id| self.value(format!("{kind}_{id}"))).collect();
        let names = |values: &[Value]| values.iter().map(Value::name).collect();
        self.nodes.borrow_mut().push(Node {
            input: names(inputs),
            output: names(&values),
            name: values[0].name(),
            op_type: kind.to_string(),
            attribute: attributes,
        });
        values
    }

    /// Appends an operator with one output.
    pub fn op<'g>(&'g self, kind: &str, inputs: &[Value<'g>], attributes: Vec<Attribute>) -> Value<'g> {
        self.node(kind, inputs, attributes, 1)[0]
    }

    pub fn concat<'g>(&'g self, values: &[Value<'g>], axis: i64) -> Value<'g> {
        self.op("Concat", values, vec![int("axis", axis)])
    }

    /// Threads states through a loop over the first axis of `inputs`: `step(states, input)` gives the next states and
    /// an output. Returns the last states and the outputs.
    pub fn scan<'g>(
        &'g self,
        start: &[Value<'g>],
        inputs: Value<'g>,
        step: impl FnOnce(&[Value<'g>], Value<'g>) -> Vec<Value<'g>>,
    ) -> Vec<Value<'g>> {
        let around = self.nodes.take();
        let given: Vec<Value> = (0..=start.len()).map(|index| self.input(&format!("step_{index}"))).collect();
        let (input, states) = given.split_last().expect("at least the input");
        let results = step(states, *input);
        let untyped = |values: &[Value]| values.iter().map(|v| ValueInfo { name: v.name(), r#type: None }).collect();
        let body = Proto {
            node: self.nodes.replace(around),
            name: "step".to_string(),
            initializer: vec![], // it sees those around it
            input: untyped(&given),
            output: untyped(&results),
        };
        let body = Attribute { name: "body".into(), g: Some(body), kind: Attribute::GRAPH, ..Attribute::default() };
        let inputs: Vec<Value> = start.iter().copied().chain([inputs]).collect();
        self.node("Scan", &inputs, vec![body, int("num_scan_inputs", 1)], results.len())
    }

    /// The finished graph, with those constants that it uses.
    pub fn finish(self, name: &str, input: Vec<ValueInfo>, output: Vec<ValueInfo>) -> Proto {
        let node = self.nodes.into_inner();
        let bodies = node.iter().flat_map(|node| &node.attribute).filter_map(|attribute| attribute.g.as_ref());
        let used: HashSet<String> =
            bodies.flat_map(|body| &body.node).chain(&node).flat_map(|node| node.input.clone()).collect();
        let mut initializer = self.constants.into_inner();
        initializer.retain(|constant| used.contains(&constant.name));
        Proto { node, name: name.to_string(), initializer, input, output }
    }
}

impl<'g> Value<'g> {
    fn name(&self) -> String {
        self.graph.names.borrow()[self.id].clone()
    }

    /// An operator of one input and no attributes.
    pub fn op(self, kind: &str) -> Value<'g> {
        self.graph.op(kind, &[self], vec![])
    }

    pub fn softmax(self) -> Value<'g> {
        self.graph.op("Softmax", &[self], vec![int("axis", -1)])
    }

    pub fn matmul(self, other: Value<'g>) -> Value<'g> {
        self.graph.op("MatMul", &[self, other], vec![])
    }

    /// self (B, inputs) W^T + b, with PyTorch's W (outputs, inputs)
    pub fn linear(self, weight: Value<'g>, bias: Value<'g>) -> Value<'g> {
        self.graph.op("Gemm", &[self, weight, bias], vec![int("transB", 1)])
    }

    /// Swaps the last two of three axes.
    pub fn transposed(self) -> Value<'g> {
        let perm =
            Attribute { name: "perm".into(), ints: vec![0, 2, 1], kind: Attribute::INTS, ..Attribute::default() };
        self.graph.op("Transpose", &[self], vec![perm])
    }

    /// The sum of the squares over the last axis.
    pub fn sum_of_squares(self) -> Value<'g> {
        let axis = self.graph.ints(&[1], &[-1]);
        self.graph.op("ReduceSumSquare", &[self, axis], vec![int("keepdims", 0)])
    }

    pub fn unsqueeze(self, axis: i64) -> Value<'g> {
        self.graph.op("Unsqueeze", &[self, self.graph.ints(&[1], &[axis])], vec![])
    }

    pub fn squeeze(self, axis: i64) -> Value<'g> {
        self.graph.op("Squeeze", &[self, self.graph.ints(&[1], &[axis])], vec![])
    }

    /// A size of 0 keeps the axis.
    pub fn reshape(self, shape: &[i64]) -> Value<'g> {
        self.graph.op("Reshape", &[self, self.graph.ints(&[shape.len()], shape)], vec![])
    }

    pub fn expand(self, shape: Value<'g>) -> Value<'g> {
        self.graph.op("Expand", &[self, shape], vec![])
    }

    /// The axis is replaced by those of `index`.
    pub fn gather(self, index: Value<'g>, axis: i64) -> Value<'g> {
        self.graph.op("Gather", &[self, index], vec![int("axis", axis)])
    }

    pub fn split(self, axis: i64, sizes: &[usize]) -> Vec<Value<'g>> {
        let lengths: Vec<i64> = sizes.iter().map(|&size| size as i64).collect();
        let lengths = self.graph.ints(&[sizes.len()], &lengths);
        self.graph.node("Split", &[self, lengths], vec![int("axis", axis)], sizes.len())
    }

    /// The size of one axis, as a shape of one number.
    pub fn size(self, axis: i64) -> Value<'g> {
        self.graph.op("Shape", &[self], vec![int("start", axis), int("end", axis + 1)])
    }

    /// This value under a name of our choice: an output of the graph.
    pub fn named(self, name: &str) -> Value<'g> {
        let value = self.graph.value(name.to_string());
        let (input, output) = (vec![self.name()], vec![value.name()]);
        let node = Node { input, output, name: format!("to_{name}"), op_type: "Identity".into(), attribute: vec![] };
        self.graph.nodes.borrow_mut().push(node);
        value
    }
}

macro_rules! arithmetic {
    ($($operator:ident $method:ident $kind:literal),*) => {$(
        impl<'g> $operator for Value<'g> {
            type Output = Value<'g>;
            fn $method(self, other: Value<'g>) -> Value<'g> {
                self.graph.op($kind, &[self, other], vec![])
            }
        }

        impl<'g> $operator<f64> for Value<'g> {
            type Output = Value<'g>;
            fn $method(self, other: f64) -> Value<'g> {
                self.$method(self.graph.scalar(other))
            }
        }

        impl<'g> $operator<Value<'g>> for f64 {
            type Output = Value<'g>;
            fn $method(self, other: Value<'g>) -> Value<'g> {
                other.graph.scalar(self).$method(other)
            }
        }
    )*};
}

arithmetic!(Add add "Add", Sub sub "Sub", Mul mul "Mul", Div div "Div");

fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: name.to_string(), i: Some(value), kind: Attribute::INT, ..Attribute::default() }
}

/// A size in the shape of an input or output.
#[derive(Clone, Copy)]
pub enum Size {
    Fixed(usize),
    /// Any, but the same wherever it has this name.
    Any(&'static str),
}

/// The name, type and shape of an input or output; `data_type` is one of `Tensor`'s.
pub fn declared(name: &str, data_type: i32, shape: &[Size]) -> ValueInfo {
    let dimension = |size: &Size| match *size {
        Size::Fixed(size) => Dimension { dim_value: Some(size as i64), dim_param: None },
        Size::Any(name) => Dimension { dim_value: None, dim_param: Some(name.to_string()) },
    };
    let shape = Some(Shape { dim: shape.iter().map(dimension).collect() });
    let tensor_type = Some(TensorType { elem_type: data_type, shape });
    ValueInfo { name: name.to_string(), r#type: Some(Type { tensor_type }) }
}
