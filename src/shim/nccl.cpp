// The one part of c10d that needs libtorch_cuda: a library of its own, so that `ntm` starts where there is none.

#include "caught.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

// An NCCL process group, for tensors on cards. Null, or a message that the caller frees.
extern "C" char *ntm_group_nccl(c10::intrusive_ptr<c10d::Store> *store, const char *prefix, int rank, int size,
                                uint64_t timeout, c10::intrusive_ptr<c10d::Backend> **made) {
  return caught([&] {
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = std::chrono::milliseconds(timeout);
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(std::string(prefix) + "/nccl", *store);
    *made = new c10::intrusive_ptr<c10d::Backend>(
        c10::make_intrusive<c10d::ProcessGroupNCCL>(prefixed, rank, size, options));
  });
}
