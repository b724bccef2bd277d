// The only file that includes torch headers. It turns tensors into plain structs, on torch's stable ABI, so that one
// build serves torch 2.10 and later. DNASM_CPU and DNASM_CUDA choose the half: each is a library of its own.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

#ifdef DNASM_CPU
#include "cpu/fftconv.h"
#include "cpu/shortconv.h"

namespace {

using namespace dnasm::cpu;

Type type_of(const Tensor& t) {
    switch (t.scalar_type()) {
        case torch::headeronly::ScalarType::Float: return Type::kFloat;
        case torch::headeronly::ScalarType::BFloat16: return Type::kBfloat;
        case torch::headeronly::ScalarType::Half: return Type::kHalf;
        default: STD_TORCH_CHECK(false, "the CPU kernels take float32, bfloat16 and float16");
    }
}

char* pointer(const Tensor& t) { return static_cast<char*>(t.data_ptr()); }

// (batch, channels, length), or fewer dimensions, of which the last ones are meant.
View view(const Tensor& t) {
    View v{pointer(t), 0, 0, 0, type_of(t)};
    const int64_t n = t.dim();
    if (n > 0) v.step = t.stride(n - 1);
    if (n > 1) v.channel = t.stride(n - 2);
    if (n > 2) v.batch = t.stride(n - 3);
    return v;
}

View view(const Maybe& t) { return t ? view(*t) : View{}; }

View filter_view(const Tensor& k) {  // (channels, taps) or (channels, 2, taps)
    View v = view(k);
    if (k.dim() == 3) std::swap(v.batch, v.channel);
    return v;
}

View channel_view(const Maybe& t) {  // (channels,)
    View v = view(t);
    std::swap(v.channel, v.step);
    return v;
}

float* floats(const Maybe& t) { return t ? static_cast<float*>(t->data_ptr()) : nullptr; }

// Flat integers from dnasm/ops/cpu.py: for each group the plan's length, the count and list of its radices, the count
// of pieces, and start and end of each.
std::vector<Group> groups_of(const Tensor& layout) {
    const auto* at = static_cast<const int64_t*>(layout.data_ptr());
    const auto* end = at + layout.numel();
    std::vector<Group> groups;
    while (at < end) {
        Group group{*at++, {}, {}};
        for (int64_t n = *at++; n > 0; --n) group.radices.push_back(int(*at++));
        for (int64_t n = *at++; n > 0; --n, at += 2) group.pieces.emplace_back(at[0], at[1]);
        groups.push_back(std::move(group));
    }
    return groups;
}

class TorchThreads final : public Threads {
  public:
    void run(int64_t workers, void (*body)(int64_t, void*), void* context) override {
        torch::stable::parallel_for(0, workers, 1, [=](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) body(i, context);
        });
    }
};

Crew crew() {
    static TorchThreads threads;
    return {&threads, torch::stable::get_num_threads()};
}

Params params_of(const Tensor& k, const Maybe& values, const Tensor& layout) {
    Params p{};
    p.channels = k.size(0);
    p.taps = k.size(k.dim() - 1);
    p.bidirectional = k.dim() == 3;
    p.k = filter_view(k);
    p.values = floats(values);
    p.groups = groups_of(layout);
    p.crew = crew();
    return p;
}

void fftconv_forward(Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip, Maybe values, Tensor layout,
                     Tensor y) {
    Params p = params_of(k, values, layout);
    p.batch = u.size(0);
    p.u = view(u);
    p.in_gate = view(in_gate);
    p.out_gate = view(out_gate);
    p.skip = channel_view(skip);
    p.y = view(y);
    forward(p);
}

void fftconv_backward(Tensor dy, Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip, Maybe values,
                      Tensor layout, Maybe du, Maybe dk, Maybe din_gate, Maybe dout_gate, Maybe dskip) {
    Params p = params_of(k, values, layout);
    p.batch = u.size(0);
    p.dy = view(dy);
    p.u = view(u);
    p.in_gate = view(in_gate);
    p.out_gate = view(out_gate);
    p.skip = channel_view(skip);
    p.du = view(du);
    p.dk = floats(dk);
    p.din_gate = view(din_gate);
    p.dout_gate = view(dout_gate);
    p.dskip = floats(dskip);
    backward(p);
}

void fftconv_spectrum(Tensor k, Tensor layout, Tensor values) {
    spectrum(params_of(k, std::nullopt, layout), static_cast<float*>(values.data_ptr()));
}

ShortParams short_params(const Tensor& x, const Tensor& weight) {
    ShortParams p{};
    p.batch = x.size(0);
    p.channels = x.size(1);
    p.length = x.size(2);
    p.taps = weight.size(1);
    p.x = view(x);
    p.weight = static_cast<const float*>(weight.data_ptr());
    p.crew = crew();
    return p;
}

void short_conv_forward(Tensor x, Tensor weight, Maybe bias, Tensor y) {
    ShortParams p = short_params(x, weight);
    p.bias = floats(bias);
    p.y = view(y);
    short_forward(p);
}

void short_conv_backward(Tensor dy, Tensor x, Tensor weight, Maybe dx, Maybe dweight, Maybe dbias) {
    ShortParams p = short_params(x, weight);
    p.dy = view(dy);
    p.dx = view(dx);
    p.dweight = floats(dweight);
    p.dbias = floats(dbias);
    short_backward(p);
}

}  // namespace

STABLE_TORCH_LIBRARY(dnasm_cpu, m) {
    m.def("forward(Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, Tensor? values, Tensor layout, "
          "Tensor(a!) y) -> ()");
    m.def("backward(Tensor dy, Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, Tensor? values, "
          "Tensor layout, Tensor(a!)? du, Tensor(b!)? dk, Tensor(c!)? din_gate, Tensor(d!)? dout_gate, "
          "Tensor(e!)? dskip) -> ()");
    m.def("spectrum(Tensor k, Tensor layout, Tensor(a!) values) -> ()");
    m.def("short_forward(Tensor x, Tensor weight, Tensor? bias, Tensor(a!) y) -> ()");
    m.def("short_backward(Tensor dy, Tensor x, Tensor weight, Tensor(a!)? dx, Tensor(b!)? dweight, Tensor(c!)? dbias) "
          "-> ()");
}

STABLE_TORCH_LIBRARY_IMPL(dnasm_cpu, CPU, m) {
    m.impl("forward", TORCH_BOX(&fftconv_forward));
    m.impl("backward", TORCH_BOX(&fftconv_backward));
    m.impl("spectrum", TORCH_BOX(&fftconv_spectrum));
    m.impl("short_forward", TORCH_BOX(&short_conv_forward));
    m.impl("short_backward", TORCH_BOX(&short_conv_backward));
}
#endif  // DNASM_CPU

#ifdef DNASM_CUDA
#include "fftconv/launch.h"

// Weak: torch without CUDA lacks it, and Python loads libraries with every symbol resolved at once.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace {

using namespace dnasm;

int dtype_of(const Tensor& t) {
    switch (t.scalar_type()) {
        case torch::headeronly::ScalarType::Float: return kFloat32;
        case torch::headeronly::ScalarType::Half: return kFloat16;
        case torch::headeronly::ScalarType::BFloat16: return kBfloat16;
        case torch::headeronly::ScalarType::Double: return kFloat64;
        default: STD_TORCH_CHECK(false, "the CUDA kernels take floating point tensors");
    }
}

void* pointer(const Maybe& t) { return t ? t->data_ptr() : nullptr; }

Rows rows(const Maybe& t) { return t ? Rows{t->data_ptr(), t->stride(0), t->stride(1)} : Rows{}; }

Params params_of(const Tensor& u, const Tensor& k, int64_t precision) {
    Params p{};
    p.batch = u.size(0);
    p.channels = u.size(1);
    p.length = u.size(2);
    p.dtype = dtype_of(u);
    p.precision = int(precision);
    p.u = rows(u);
    p.filter = k.data_ptr();
    p.filter_length = k.size(k.dim() - 1);
    p.filter_dtype = dtype_of(k);
    p.bidirectional = k.dim() == 3;
    return p;
}

// Calls a launching function on the tensors' device and its current stream.
void launch(const char* (*function)(const Params&), Params& p, const Tensor& u) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this torch has no CUDA");
    const torch::stable::accelerator::DeviceGuard guard(u.get_device_index());
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(u.get_device_index(), &p.stream) == 0, "no CUDA stream");
    const char* error = function(p);
    STD_TORCH_CHECK(!error, error ? error : "");
}

void set_inputs(Params& p, const Maybe& in_gate, const Maybe& out_gate, const Maybe& skip, const Tensor& spectrum,
                const Maybe& scratch) {
    p.in_gate = rows(in_gate);
    p.out_gate = rows(out_gate);
    p.skip = static_cast<const float*>(pointer(skip));
    p.spectrum = spectrum.data_ptr();
    p.scratch = pointer(scratch);
}

std::tuple<int64_t, int64_t, int64_t> buffer_sizes(Tensor u, Tensor k, int64_t precision) {
    const Params p = params_of(u, k, precision);
    return {int64_t(spectrum_bytes(p)), int64_t(forward_scratch_bytes(p)), int64_t(backward_scratch_bytes(p))};
}

void fftconv_spectrum(Tensor u, Tensor k, int64_t precision, Tensor spectrum) {
    Params p = params_of(u, k, precision);
    p.spectrum = spectrum.data_ptr();
    launch(filter_spectrum, p, u);
}

void fftconv_forward(Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip, int64_t precision, Tensor spectrum,
                     Maybe scratch, Tensor y) {
    Params p = params_of(u, k, precision);
    set_inputs(p, in_gate, out_gate, skip, spectrum, scratch);
    p.y = rows(y);
    launch(forward, p, u);
}

void fftconv_backward(Tensor dy, Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip, int64_t precision,
                      Tensor spectrum, Maybe scratch, Maybe du, Maybe dk, Maybe din_gate, Maybe dout_gate,
                      Maybe dskip) {
    Params p = params_of(u, k, precision);
    set_inputs(p, in_gate, out_gate, skip, spectrum, scratch);
    p.dy = rows(dy);
    p.du = rows(du);
    p.dk = static_cast<float*>(pointer(dk));
    p.din_gate = rows(din_gate);
    p.dout_gate = rows(dout_gate);
    p.dskip = static_cast<float*>(pointer(dskip));
    launch(backward, p, u);
}

int64_t plan_of(int64_t length, int64_t precision) { return plan_length(length, int(precision)); }

bool has_plan(int64_t plan, int64_t dtype, int64_t precision) { return has_kernels(plan, int(dtype), int(precision)); }

}  // namespace

STABLE_TORCH_LIBRARY(dnasm_cuda, m) {
    m.def("plan_length(int length, int precision) -> int");
    m.def("has_kernels(int plan, int dtype, int precision) -> bool");
    m.def("buffer_sizes(Tensor u, Tensor k, int precision) -> (int, int, int)");
    m.def("spectrum(Tensor u, Tensor k, int precision, Tensor(a!) spectrum) -> ()");
    m.def("forward(Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, int precision, "
          "Tensor spectrum, Tensor(a!)? scratch, Tensor(b!) y) -> ()");
    m.def("backward(Tensor dy, Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, "
          "int precision, Tensor spectrum, Tensor(a!)? scratch, Tensor(b!)? du, Tensor(c!)? dk, Tensor(d!)? din_gate, "
          "Tensor(e!)? dout_gate, Tensor(f!)? dskip) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(dnasm_cuda, CompositeExplicitAutograd, m) {
    m.impl("plan_length", TORCH_BOX(&plan_of));
    m.impl("has_kernels", TORCH_BOX(&has_plan));
}

STABLE_TORCH_LIBRARY_IMPL(dnasm_cuda, CUDA, m) {
    m.impl("buffer_sizes", TORCH_BOX(&buffer_sizes));
    m.impl("spectrum", TORCH_BOX(&fftconv_spectrum));
    m.impl("forward", TORCH_BOX(&fftconv_forward));
    m.impl("backward", TORCH_BOX(&fftconv_backward));
}
#endif  // DNASM_CUDA
