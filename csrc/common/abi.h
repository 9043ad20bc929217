// Tensors on torch's stable C interface, as the kernels (csrc/*/*_cpu.cpp, *_cuda.cpp) and their callers see them.
#pragma once
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/HeaderOnlyArrayRef.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace automl_ext::abi {

using torch::headeronly::ScalarType;
using IntList = torch::headeronly::HeaderOnlyArrayRef<int64_t>;
// torch 2.11 has no comparison of them.
inline bool equal(IntList a, IntList b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

// Throws if a function of torch's C interface failed. Torch 2.10 and 2.11 do not tell why.
inline void check(AOTITorchError error) {
  if (!error) return;
  const auto what =
      reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, "torch_exception_get_what_without_backtrace"));
  throw std::runtime_error(what ? what() : "automl_ext: torch failed");
}

struct Device {
  int32_t type, index;
  bool operator==(const Device& other) const { return type == other.type && index == other.index; }
  bool is_cpu() const { return type == aoti_torch_device_type_cpu(); }
  bool is_cuda() const { return type == aoti_torch_device_type_cuda(); }
};

// A handle of an at::Tensor. It owns the handle, or it borrows one from a caller, who keeps it until the call has returned.
class Tensor {
 public:
  Tensor() = default;
  static Tensor own(AtenTensorHandle handle) { return Tensor(handle, true); }
  static Tensor borrow(AtenTensorHandle handle) { return Tensor(handle, false); }
  Tensor(const Tensor& other) : handle_(other.owned_ ? other.copy() : other.handle_), owned_(other.owned_) {}
  Tensor(Tensor&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), owned_(std::exchange(other.owned_, false)) {}
  Tensor& operator=(Tensor other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~Tensor() {
    if (owned_) aoti_torch_delete_tensor_object(handle_);
  }

  bool defined() const { return handle_; }
  AtenTensorHandle handle() const { return handle_; }
  // A new handle of the same tensor, for a function that takes ownership.
  AtenTensorHandle copy() const {
    AtenTensorHandle handle;
    check(aoti_torch_new_tensor_handle(handle_, &handle));
    return handle;
  }
  AtenTensorHandle release() && {
    if (!owned_) return copy();
    owned_ = false;
    return std::exchange(handle_, nullptr);
  }

  int64_t dim() const { return get<int64_t>(aoti_torch_get_dim); }
  int64_t numel() const { return get<int64_t>(aoti_torch_get_numel); }
  IntList sizes() const { return IntList(get<int64_t*>(aoti_torch_get_sizes), size_t(dim())); }
  IntList strides() const { return IntList(get<int64_t*>(aoti_torch_get_strides), size_t(dim())); }
  int64_t size(int64_t i) const { return of_dim(sizes(), i); }
  int64_t stride(int64_t i) const { return of_dim(strides(), i); }
  bool is_contiguous() const { return get<bool>(aoti_torch_is_contiguous); }
  bool is_strided() const { return get<int32_t>(aoti_torch_get_layout) == aoti_torch_layout_strided(); }
  // The codes of the C interface are the values of the enumeration, which do not change: files contain them.
  ScalarType scalar_type() const { return ScalarType(get<int32_t>(aoti_torch_get_dtype)); }
  int64_t element_size() const { return int64_t(aoti_torch_dtype_element_size(int32_t(scalar_type()))); }
  Device device() const {
    return {get<int32_t>(aoti_torch_get_device_type), get<int32_t>(aoti_torch_get_device_index)};
  }
  const void* const_data_ptr() const { return get<const void*>(torch_get_const_data_ptr); }
  void* mutable_data_ptr() const { return get<void*>(torch_get_mutable_data_ptr); }
  template <class T>
  const T* const_data_ptr() const {
    return static_cast<const T*>(const_data_ptr());
  }
  template <class T>
  T* mutable_data_ptr() const {
    return static_cast<T*>(mutable_data_ptr());
  }

 private:
  Tensor(AtenTensorHandle handle, bool owned) : handle_(handle), owned_(owned) {}

  template <class T>
  T get(AOTITorchError (*read)(AtenTensorHandle, T*)) const {
    T value;
    check(read(handle_, &value));
    return value;
  }
  static int64_t of_dim(IntList values, int64_t i) {
    const int64_t dims = int64_t(values.size());
    if (i < -dims || i >= dims)
      throw std::out_of_range("Dimension out of range (expected to be in range of [" + std::to_string(-dims) + ", " +
                              std::to_string(dims - 1) + "], but got " + std::to_string(i) + ")");
    return values[i < 0 ? i + dims : i];
  }

  AtenTensorHandle handle_ = nullptr;
  bool owned_ = false;
};

using TensorList = torch::headeronly::HeaderOnlyArrayRef<Tensor>;
using OptionalTensor = std::optional<Tensor>;

}  // namespace automl_ext::abi
