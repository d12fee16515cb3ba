//! A recipe is refused with an error, or reads as itself again and says how much memory it needs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ntm::config::Recipe;
use ntm::fused::activations;

fuzz_target!(|text: &str| {
    if let Ok(recipe) = Recipe::parse(text, &[]) {
        let again = serde_json::to_string(&recipe).expect("a recipe is JSON");
        assert_eq!(Recipe::parse(&again, &[]).expect("it was valid"), recipe);
        let values = activations(recipe.network(), recipe.task.max_steps(), recipe.training.batch_size, 2);
        let _ = ntm::memory::check(&recipe, 1, 1, values);
    }
});
