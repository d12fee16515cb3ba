// TorchScript modules made from source. A function returns null, or a message that the caller frees.

#include "caught.h"

#include <torch/csrc/jit/api/module.h>

#include <sstream>

using torch::jit::Module;

extern "C" {

// Every module of PyTorch has `training`; `torch.jit.freeze` asks for it.
char *ntm_script_new(const char *type, Module **made) {
  return caught([&] {
    *made = new Module(c10::QualifiedName(type));
    (*made)->register_attribute("training", c10::BoolType::get(), false);
  });
}

char *ntm_script_child(Module *module, const char *name, const Module *child) {
  return caught([&] { module->register_module(name, *child); });
}

// A learned tensor becomes a parameter, any other a buffer.
char *ntm_script_tensor(Module *module, const char *name, const at::Tensor *tensor, bool learned) {
  return caught([&] { module->register_parameter(name, tensor->detach().set_requires_grad(learned), !learned); });
}

char *ntm_script_text(Module *module, const char *name, const char *text) {
  return caught([&] { module->register_attribute(name, c10::StringType::get(), std::string(text)); });
}

char *ntm_script_define(Module *module, const char *source) {
  return caught([&] { module->define(source); });
}

// Hands the bytes of the file to `take`; `extra` is `count` pairs of a file's name and its text. In memory, because libtorch
// ends the process where it cannot write.
char *ntm_script_save(const Module *module, const char *const *extra, size_t count,
                      void (*take)(void *, const char *, size_t), void *to) {
  return caught([&] {
    torch::jit::ExtraFilesMap files;
    for (size_t i = 0; i < count; i++) files[extra[2 * i]] = extra[2 * i + 1];
    std::ostringstream file;
    module->save(file, files);
    const std::string bytes = file.str();
    take(to, bytes.data(), bytes.size());
  });
}

}
