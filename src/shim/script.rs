//! TorchScript modules made from source.

use super::{check, take, text};
use anyhow::Result;
use std::ffi::{CString, c_char, c_void};
use std::ptr::null_mut;
use tch::Tensor;
use torch_sys::{C_tensor, CModule_};

unsafe extern "C" {
    fn ntm_script_new(kind: *const c_char, made: *mut *mut CModule_) -> *mut c_char;
    fn ntm_script_child(module: *mut CModule_, name: *const c_char, child: *const CModule_) -> *mut c_char;
    fn ntm_script_tensor(
        module: *mut CModule_,
        name: *const c_char,
        tensor: *const C_tensor,
        learned: bool,
    ) -> *mut c_char;
    fn ntm_script_text(module: *mut CModule_, name: *const c_char, text: *const c_char) -> *mut c_char;
    fn ntm_script_define(module: *mut CModule_, source: *const c_char) -> *mut c_char;
    fn ntm_script_save(
        module: *const CModule_,
        extra: *const *const c_char,
        count: usize,
        take: extern "C" fn(*mut c_void, *const u8, usize),
        to: *mut c_void,
    ) -> *mut c_char;
}

/// A module under construction. After an error it is good for nothing but to be dropped.
pub struct Script {
    module: *mut CModule_,
}

impl Script {
    /// An empty module of the given type, for instance `__torch__.ntm`.
    pub fn new(kind: &str) -> Result<Script> {
        let mut module = null_mut();
        let kind = text(kind)?;
        // SAFETY: `kind` is a C string, `module` a place for a pointer.
        check(unsafe { ntm_script_new(kind.as_ptr(), &mut module) })?;
        Ok(Script { module })
    }

    /// Adds a submodule, whose methods must have been defined.
    pub fn child(&mut self, name: &str, child: &Script) -> Result<()> {
        let name = text(name)?;
        // SAFETY: both modules live, and the parent keeps what it needs of its child.
        check(unsafe { ntm_script_child(self.module, name.as_ptr(), child.module) })
    }

    /// Adds a parameter, or where nothing is learned a buffer. It shares its values with `tensor`.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor, learned: bool) -> Result<()> {
        let name = text(name)?;
        // SAFETY: the module and the tensor live.
        check(unsafe { ntm_script_tensor(self.module, name.as_ptr(), tensor.as_ptr(), learned) })
    }

    /// Adds a string attribute.
    pub fn text(&mut self, name: &str, value: &str) -> Result<()> {
        let (name, value) = (text(name)?, text(value)?);
        // SAFETY: the module lives, and both are C strings.
        check(unsafe { ntm_script_text(self.module, name.as_ptr(), value.as_ptr()) })
    }

    /// Compiles methods, which may call those of the submodules.
    pub fn define(&mut self, source: &str) -> Result<()> {
        let source = text(source)?;
        // SAFETY: the module lives, and the source is a C string.
        check(unsafe { ntm_script_define(self.module, source.as_ptr()) })
    }

    /// The bytes of its file, with extra files (name, text) in it.
    pub fn save(&self, extra: &[(&str, &str)]) -> Result<Vec<u8>> {
        let extra: Vec<CString> =
            extra.iter().flat_map(|(name, value)| [text(name), text(value)]).collect::<Result<_>>()?;
        let pointers: Vec<*const c_char> = extra.iter().map(|text| text.as_ptr()).collect();
        let mut bytes = vec![];
        // SAFETY: the module lives, `pointers` has two C strings for each extra file, and `take` gets `bytes` back.
        check(unsafe {
            ntm_script_save(self.module, pointers.as_ptr(), pointers.len() / 2, take, (&raw mut bytes).cast())
        })?;
        Ok(bytes)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // SAFETY: `ntm_script_new` made it with `new`, as torch-sys makes its modules, and nothing else frees it.
        unsafe { torch_sys::atm_free(self.module) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_that_does_not_compile_is_an_error_with_its_place() {
        let mut script = Script::new("__torch__.test").unwrap();
        let error = script.define("def forward(self, x: Tensor) -> Tensor:\n    return y\n").unwrap_err().to_string();
        assert!(error.contains("undefined value y"), "{error}");
    }
}
