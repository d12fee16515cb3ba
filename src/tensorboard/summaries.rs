//! The values of an event, in the types of tensorboard-proto.

use super::look::Picture;
use protobuf::well_known_types::Value as ProtoValue;
use protobuf::{Message, RepeatedField};
use serde_json::Value;
use tensorboard_proto::api::Status;
use tensorboard_proto::plugin_hparams::{HParamsPluginData, SessionEndInfo, SessionStartInfo};
use tensorboard_proto::summary::{Summary, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::tensor_shape::{TensorShapeProto, TensorShapeProto_Dim};
use tensorboard_proto::types::DataType;
use tensorboard_rs::summary;

const BUCKETS: usize = 50;

/// What a run may change when it goes on. TensorBoard shows the parameters of its first session for ever.
const CHANGING: &[&str] = &["training.sequences", "training.on_nonfinite"];

/// Values that share a step.
#[derive(Default)]
pub struct Summaries(Vec<Summary_Value>);

impl From<Summaries> for Summary {
    fn from(summaries: Summaries) -> Summary {
        let mut summary = Summary::new();
        summary.set_value(RepeatedField::from(summaries.0));
        summary
    }
}

impl Summaries {
    pub fn scalar(&mut self, tag: &str, value: f64) {
        self.0.extend(summary::scalar(tag, value as f32).take_value());
    }

    /// Buckets of equal width from the least to the largest value; values that are not finite are left out.
    pub fn histogram(&mut self, tag: &str, values: &[f32]) {
        let finite = || values.iter().map(|&value| value as f64).filter(|value| value.is_finite());
        let (least, most) =
            finite().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        if least > most {
            return;
        }
        let width = ((most - least) / BUCKETS as f64).max(f64::MIN_POSITIVE);
        let limits: Vec<f64> =
            (1..=BUCKETS).map(|i| if i == BUCKETS { most } else { least + width * i as f64 }).collect();
        let mut counts = vec![0.0; BUCKETS];
        finite().for_each(|value| counts[(((value - least) / width) as usize).min(BUCKETS - 1)] += 1.0);
        let (sum, squares) = finite().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        let number = finite().count() as f64;
        self.0.extend(summary::histogram_raw(tag, least, most, number, sum, squares, &limits, &counts).take_value());
    }

    /// A picture as a PNG. tensorboard-rs takes the width for the height in its message, though not in the PNG.
    pub fn picture(&mut self, picture: &Picture) {
        let Picture { tag, width, height, rgb } = picture;
        let mut values = summary::image(tag, rgb, &[3, *width, *height]).take_value();
        for value in values.iter_mut() {
            let image = value.mut_image();
            image.set_width(*width as i32);
            image.set_height(*height as i32);
        }
        self.0.extend(values);
    }

    pub fn text(&mut self, tag: &str, text: &str) {
        let (mut tensor, mut shape, mut one) =
            (TensorProto::new(), TensorShapeProto::new(), TensorShapeProto_Dim::new());
        one.set_size(1);
        shape.set_dim(RepeatedField::from(vec![one]));
        tensor.set_dtype(DataType::DT_STRING);
        tensor.set_tensor_shape(shape);
        tensor.set_string_val(RepeatedField::from(vec![text.as_bytes().to_vec()]));
        let mut value = plugin_value(tag, "text", vec![]);
        value.set_tensor(tensor);
        self.0.push(value);
    }

    /// Every number, word and yes or no of a recipe's task, model and training by its path, but for those that change.
    /// What a run is measured at makes no other run of it, and would fill the columns that HPARAMS shows first.
    pub fn parameters(&mut self, recipe: &Value, now: f64) {
        let mut start = SessionStartInfo::new();
        let mut leaves = vec![];
        for section in ["task", "model", "training"] {
            collect(section, &recipe[section], &mut leaves);
        }
        for (path, leaf) in leaves.into_iter().filter(|(path, _)| !CHANGING.iter().any(|start| path.starts_with(start)))
        {
            let mut value = ProtoValue::new();
            match leaf {
                Value::Number(number) => value.set_number_value(number.as_f64().unwrap_or(f64::NAN)),
                Value::Bool(yes) => value.set_bool_value(*yes),
                other => value.set_string_value(other.as_str().map_or_else(|| other.to_string(), str::to_string)),
            }
            start.mut_hparams().insert(path, value);
        }
        start.set_start_time_secs(now);
        let mut data = HParamsPluginData::new();
        data.set_session_start_info(start);
        self.plugin("_hparams_/session_start_info", &data);
    }

    pub fn finished(&mut self, now: f64) {
        let mut end = SessionEndInfo::new();
        end.set_status(Status::STATUS_SUCCESS);
        end.set_end_time_secs(now);
        let mut data = HParamsPluginData::new();
        data.set_session_end_info(end);
        self.plugin("_hparams_/session_end_info", &data);
    }

    fn plugin(&mut self, tag: &str, data: &HParamsPluginData) {
        let bytes = data.write_to_bytes().unwrap_or_default(); // required fields there are none, memory is no error
        self.0.push(plugin_value(tag, "hparams", bytes));
    }
}

fn plugin_value(tag: &str, plugin: &str, content: Vec<u8>) -> Summary_Value {
    let (mut value, mut metadata, mut data) =
        (Summary_Value::new(), SummaryMetadata::new(), SummaryMetadata_PluginData::new());
    data.set_plugin_name(plugin.to_string());
    data.set_content(content);
    metadata.set_plugin_data(data);
    value.set_tag(tag.to_string());
    value.set_metadata(metadata);
    value
}

/// The leaves of a recipe, lists as one, under paths like `training.batch_size`.
fn collect<'a>(path: &str, value: &'a Value, leaves: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                collect(&format!("{path}.{name}"), value, leaves);
            }
        }
        leaf => leaves.push((path.to_string(), leaf)),
    }
}
