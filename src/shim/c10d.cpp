// The engine of torch.distributed: a store of keys that all processes of a job share, and operations on tensors of all of them.
// A function returns null, or a message that the caller frees.

#include "caught.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

C10_DECLARE_int(caffe2_log_level);

using c10d::Backend, c10d::ProcessGroupGloo, c10d::Store;
using std::chrono::milliseconds;
using Pointer = c10::intrusive_ptr<Backend>;
using Interfaces = std::vector<std::shared_ptr<::gloo::transport::Device>>;

extern "C" {

char *ntm_store_open(const char *host, uint16_t port, bool serves, uint64_t timeout, c10::intrusive_ptr<Store> **made) {
  return caught([&] {
    // c10d writes warnings with C++ traces to stderr; what they tell comes back as a message too
    if (!getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
    // each wait for NCCL then ends with an error of its own at the time-out, where a watchdog would end the process by a trace;
    // set here, while nothing else runs
    setenv("TORCH_NCCL_BLOCKING_WAIT", "1", 0);
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serves;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout);
    *made = new c10::intrusive_ptr<Store>(c10::make_intrusive<c10d::TCPStore>(host, options));
  });
}

void ntm_store_close(c10::intrusive_ptr<Store> *store) { delete store; }

char *ntm_store_set(c10::intrusive_ptr<Store> *store, const char *key, const uint8_t *value, size_t size) {
  return caught([&] { (*store)->set(key, std::vector<uint8_t>(value, value + size)); });
}

// Whether all of `count` keys have a value.
char *ntm_store_has(c10::intrusive_ptr<Store> *store, const char *const *keys, size_t count, bool *has) {
  return caught([&] { *has = (*store)->check(std::vector<std::string>(keys, keys + count)); });
}

// Hands the bytes to `take`; waits for nothing longer than the store's time-out.
char *ntm_store_get(c10::intrusive_ptr<Store> *store, const char *key, void (*take)(void *, const uint8_t *, size_t),
                    void *to) {
  return caught([&] {
    const std::vector<uint8_t> value = (*store)->get(key);
    take(to, value.data(), value.size());
  });
}

// The network interfaces of the given names (comma-separated), or if there are none the one with this address.
char *ntm_interfaces_open(const char *names, const char *address, Interfaces **made) {
  return caught([&] {
    auto opened = std::make_unique<Interfaces>();
    std::stringstream list(names);
    for (std::string name; std::getline(list, name, ',');)
      opened->push_back(ProcessGroupGloo::createDeviceForInterface(name));
    if (opened->empty()) opened->push_back(ProcessGroupGloo::createDeviceForHostname(address));
    *made = opened.release();
  });
}

void ntm_interfaces_close(Interfaces *interfaces) { delete interfaces; }

char *ntm_group_gloo(c10::intrusive_ptr<Store> *store, const char *prefix, int rank, int size,
                     const Interfaces *interfaces, uint64_t timeout, Pointer **made) {
  return caught([&] {
    auto options = ProcessGroupGloo::Options::create(milliseconds(timeout));
    options->devices = *interfaces;
    options->threads = interfaces->size() * 2;
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(std::string(prefix) + "/gloo", *store);
    *made = new Pointer(c10::make_intrusive<ProcessGroupGloo>(prefixed, rank, size, options));
  });
}

void ntm_group_close(Pointer *group) { delete group; }

// In place: each element becomes the sum over all processes, or the largest.
char *ntm_group_reduce(Pointer *group, const at::Tensor *tensor, bool largest) {
  return caught([&] {
    std::vector<at::Tensor> tensors = {*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = largest ? c10d::ReduceOp::MAX : c10d::ReduceOp::SUM;
    auto work = (*group)->allreduce(tensors, options);
    // NCCL's wait looks once a millisecond, longer than most updates take
    const auto soon = std::chrono::steady_clock::now() + milliseconds(20);
    while (tensor->is_cuda() && !work->isCompleted() && std::chrono::steady_clock::now() < soon) std::this_thread::yield();
    work->wait();
  });
}

// In place: the tensor becomes that of rank 0.
char *ntm_group_broadcast(Pointer *group, const at::Tensor *tensor) {
  return caught([&] {
    std::vector<at::Tensor> tensors = {*tensor};
    (*group)->broadcast(tensors)->wait();
  });
}

}
