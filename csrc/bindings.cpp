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

ShortParams short_params(const Tensor& x, const Tensor& weight, const Maybe& bias, int64_t streams, int64_t ahead) {
    ShortParams p{};
    p.batch = x.size(0);
    p.channels = x.size(1) / streams;
    p.length = x.size(2);
    p.taps = weight.size(1);
    p.streams = streams, p.ahead = ahead;
    p.x = view(x);
    p.weight = static_cast<const float*>(weight.data_ptr());
    p.bias = floats(bias);
    p.crew = crew();
    return p;
}

void short_conv_forward(Tensor x, Tensor weight, Maybe bias, int64_t streams, int64_t ahead, Tensor y, Maybe mixed) {
    ShortParams p = short_params(x, weight, bias, streams, ahead);
    p.y = view(y);
    p.mixed = view(mixed);
    short_forward(p);
}

void short_conv_backward(Tensor dy, Maybe dmixed, Tensor x, Tensor weight, Maybe bias, int64_t streams, int64_t ahead,
                         Maybe dx, Maybe dweight, Maybe dbias) {
    ShortParams p = short_params(x, weight, bias, streams, ahead);
    p.dy = view(dy);
    p.dmixed = view(dmixed);
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
    m.def("short_forward(Tensor x, Tensor weight, Tensor? bias, int streams, int ahead, Tensor(a!) y, "
          "Tensor(b!)? mixed) -> ()");
    m.def("short_backward(Tensor dy, Tensor? dmixed, Tensor x, Tensor weight, Tensor? bias, int streams, int ahead, "
          "Tensor(a!)? dx, Tensor(b!)? dweight, Tensor(c!)? dbias) -> ()");
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
#include "short/short.h"

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

// Samples side by side; rows may lie anywhere. Others are copied once: a row read with a stride costs a line a sample.
Maybe in_rows(Maybe t) { return !t || t->stride(2) == 1 || t->size(2) == 1 ? t : Maybe(torch::stable::contiguous(*t)); }
Tensor floats(const Tensor& t) {  // float32, contiguous
    const bool same = t.scalar_type() == torch::headeronly::ScalarType::Float;
    return torch::stable::contiguous(same ? t : torch::stable::to(t, torch::headeronly::ScalarType::Float));
}

Tensor bytes(const Tensor& like, size_t n) {
    const auto size = static_cast<int64_t>(n);
    return torch::stable::new_empty(like, {&size, 1}, torch::headeronly::ScalarType::Byte);
}

// Calls a launching function on the tensors' device and its current stream; kernels of csrc/host run on CPU tensors.
template <class P> void launch(const char* (*function)(const P&), P& p, const Tensor& on) {
    const char* error = nullptr;
    if (on.is_cuda()) {
        STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this torch has no CUDA");
        const torch::stable::accelerator::DeviceGuard guard(on.get_device_index());
        STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &p.stream) == 0, "no CUDA stream");
        error = function(p);
    } else {
        error = function(p);
    }
    STD_TORCH_CHECK(!error, error ? error : "");
}

// The tensors of one call, as the kernels read them. Python has said what is wrong with others; here nothing is believed.
struct Call {
    Tensor u, k;
    Maybe in_gate, out_gate, skip;
    Maybe starts, ends;
    Params p{};

    Call(const Tensor& signal, const Tensor& filter, const Maybe& input_gate, const Maybe& output_gate,
         const Maybe& skip_weights, int64_t precision)
        : u(signal), k(filter) {
        STD_TORCH_CHECK(u.dim() == 3, "u: (batch, channels, length)");
        STD_TORCH_CHECK((k.dim() == 2 || (k.dim() == 3 && k.size(1) == 2)) && k.size(0) == u.size(1), "k: not u's channels");
        near(k, "k");
        u = *in_rows(u);
        k = torch::stable::contiguous(k);
        in_gate = like_u(input_gate, "in_gate"), out_gate = like_u(output_gate, "out_gate");
        if (skip_weights) {
            STD_TORCH_CHECK(skip_weights->dim() == 1 && skip_weights->size(0) == u.size(1), "skip: not u's channels");
            near(*skip_weights, "skip");
            skip = floats(*skip_weights);
        }
        p.batch = u.size(0), p.channels = u.size(1), p.length = u.size(2);
        p.dtype = dtype_of(u);
        p.precision = int(precision);
        p.u = rows(u), p.in_gate = rows(in_gate), p.out_gate = rows(out_gate);
        p.skip = static_cast<const float*>(pointer(skip));
        set_filter(p, k);
    }
    static void set_filter(Params& p, const Tensor& k) {
        p.filter = k.data_ptr();
        p.filter_length = k.size(k.dim() - 1);
        p.filter_dtype = dtype_of(k);
        p.bidirectional = k.dim() == 3;
    }
    void near(const Tensor& t, const char* name) const {
        STD_TORCH_CHECK(t.is_cuda() == u.is_cuda() && t.get_device_index() == u.get_device_index(), name, ": not on u's device");
    }
    // Segments of `longest` samples or fewer share each row: int64 bounds on u's device, read by the kernels alone.
    void pack(const Tensor& first, const Tensor& behind, int64_t longest) {
        for (const Tensor* t : {&first, &behind}) {
            const bool wide = t->scalar_type() == torch::headeronly::ScalarType::Long;
            STD_TORCH_CHECK(wide && t->dim() == 1 && t->numel() == first.numel() && t->numel() > 0, "bounds: int64");
            near(*t, "bounds");
        }
        starts = torch::stable::contiguous(first), ends = torch::stable::contiguous(behind);
        p.starts = static_cast<const int64_t*>(starts->data_ptr());
        p.ends = static_cast<const int64_t*>(ends->data_ptr());
        p.segments = starts->numel(), p.packed_length = p.length;
        p.batch *= p.segments, p.length = longest;
    }
    Maybe like_u(const Maybe& t, const char* name) const {
        if (!t) return t;
        STD_TORCH_CHECK(t->dim() == 3 && t->scalar_type() == u.scalar_type(), name, ": not like u");
        for (int i = 0; i < 3; ++i) STD_TORCH_CHECK(t->size(i) == u.size(i), name, ": not like u");
        near(*t, name);
        return in_rows(t);
    }
    // k's spectrum: the caller's, if it is of this length, else made now.
    Tensor spectrum(const Maybe& known) {
        if (direct()) return bytes(u, 0);
        const size_t n = spectrum_bytes(p);
        const bool fits = known && static_cast<size_t>(known->numel()) == n;
        Tensor values = fits ? *known : bytes(u, n);
        p.spectrum = values.data_ptr();
        if (!fits) launch(filter_spectrum, p, u);
        return values;
    }
    bool direct() const { return p.precision == kDirect; }
    Maybe scratch(size_t n) {
        if (!n) return std::nullopt;
        Tensor memory = bytes(u, n);
        p.scratch = memory.data_ptr();
        return memory;
    }
    Tensor signal() const { return torch::stable::new_empty(u, u.sizes()); }

    void forward_into(const Tensor& y) {
        const Maybe memory = scratch(direct() ? 0 : forward_scratch_bytes(p));
        p.y = rows(y);
        launch(direct() ? direct_forward : forward, p, u);
    }
    // The gradients of signals into tensors that are there, those of k and skip into new ones: bit i of `needs` asks for i.
    std::tuple<Maybe, Maybe> backward_into(const Tensor& dy, int64_t needs, const Maybe& du, const Maybe& din, const Maybe& dout) {
        const auto sums = [&](int i, const Maybe& of) {
            if (!(needs >> i & 1) || !of) return Maybe();
            return Maybe(torch::stable::new_empty(*of, of->sizes(), torch::headeronly::ScalarType::Float));
        };
        const Maybe g = like_u(dy, "dy"), memory = scratch((direct() ? direct_scratch_bytes : backward_scratch_bytes)(p)), dk = sums(1, k), dskip = sums(4, skip);
        p.dy = rows(g), p.du = rows(du), p.din_gate = rows(din), p.dout_gate = rows(dout);
        p.dk = static_cast<float*>(pointer(dk)), p.dskip = static_cast<float*>(pointer(dskip));
        launch(direct() ? direct_backward : backward, p, u);
        return {dk, dskip};
    }
};

Tensor spectrum_of(Tensor k, int64_t length, int64_t dtype, int64_t precision) {
    Params p{};
    p.batch = 1, p.channels = k.size(0), p.length = length;
    p.dtype = int(dtype), p.precision = int(precision);
    k = torch::stable::contiguous(k);
    Call::set_filter(p, k);
    Tensor values = bytes(k, spectrum_bytes(p));
    p.spectrum = values.data_ptr();
    launch(filter_spectrum, p, k);
    return values;
}

// y, and the spectrum that it took.
std::tuple<Tensor, Tensor> convolve(Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip, Maybe values,
                                    int64_t precision) {
    Call call(u, k, in_gate, out_gate, skip, precision);
    Tensor spectrum = call.spectrum(values), y = call.signal();
    call.forward_into(y);
    return {y, spectrum};
}

// The gradients of u, k, in_gate, out_gate and skip; bit i of `needs` asks for the ith.
std::tuple<Maybe, Maybe, Maybe, Maybe, Maybe> gradients(Tensor dy, Tensor u, Tensor k, Maybe in_gate, Maybe out_gate,
                                                        Maybe skip, Maybe values, int64_t precision, int64_t needs) {
    Call call(u, k, in_gate, out_gate, skip, precision);
    const Tensor spectrum = call.spectrum(values);
    const auto blank = [&](int i, bool there) { return needs >> i & 1 && there ? Maybe(call.signal()) : std::nullopt; };
    const auto narrowed = [](const Maybe& sum, const Maybe& of) {
        return sum && of->scalar_type() != sum->scalar_type() ? Maybe(torch::stable::to(*sum, of->scalar_type())) : sum;
    };
    const Maybe du = blank(0, true), din = blank(2, bool(in_gate)), dout = blank(3, bool(out_gate));
    const auto [dk, dskip] = call.backward_into(dy, needs, du, din, dout);
    return {du, narrowed(dk, k), din, dout, narrowed(dskip, skip)};
}

// The same for packed sequences, into tensors that may hold other sequences' results already.
void convolve_packed(Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip, Tensor starts, Tensor ends,
                     int64_t longest, int64_t precision, Tensor y) {
    Call call(u, k, in_gate, out_gate, skip, precision);
    call.pack(starts, ends, longest);
    const Tensor spectrum = call.spectrum(std::nullopt);
    call.forward_into(y);
}

std::tuple<Maybe, Maybe> gradients_packed(Tensor dy, Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip,
                                          Tensor starts, Tensor ends, int64_t longest, int64_t precision, int64_t needs,
                                          Maybe du, Maybe din_gate, Maybe dout_gate) {
    Call call(u, k, in_gate, out_gate, skip, precision);
    call.pack(starts, ends, longest);
    const Tensor spectrum = call.spectrum(std::nullopt);
    return call.backward_into(dy, needs, du, din_gate, dout_gate);
}

ShortParams short_params(const Tensor& x, const Tensor& weight, const Maybe& bias, int64_t streams, int64_t ahead) {
    STD_TORCH_CHECK(x.dim() == 3 && weight.dim() == 2 && weight.size(0) == x.size(1), "weight: not x's channels");
    STD_TORCH_CHECK(streams > 0 && x.size(1) % streams == 0, "x: channels of ", streams, " streams");
    ShortParams p{};
    p.batch = x.size(0), p.channels = x.size(1) / streams, p.length = x.size(2);
    p.streams = int(streams), p.taps = int(weight.size(1)), p.ahead = int(ahead), p.dtype = dtype_of(x);
    p.x = {x.data_ptr(), x.stride(0), x.stride(1), x.stride(2)};
    p.weight = static_cast<const float*>(weight.data_ptr());  // float32 and contiguous, as bias
    p.bias = static_cast<const float*>(pointer(bias));
    return p;
}

Tensor stream_of(const Tensor& x, int64_t streams) {
    const int64_t sizes[] = {x.size(0), x.size(1) / streams, x.size(2)};
    return torch::stable::new_empty(x, {sizes, 3});
}

// The convolution of one stream; of three, the first's and the product of the other two's.
std::tuple<Tensor, Maybe> short_convolve(Tensor x, Tensor weight, Maybe bias, int64_t streams, int64_t ahead) {
    ShortParams p = short_params(x, weight, bias, streams, ahead);
    const Tensor y = stream_of(x, streams);
    const Maybe mixed = streams > 1 ? Maybe(stream_of(x, streams)) : std::nullopt;
    p.y = rows(y), p.mixed = rows(mixed);
    launch(short_forward, p, x);
    return {y, mixed};
}

// Sets dx, as large as x and in any layout; returns the gradients of weight and bias.
std::tuple<Tensor, Tensor> short_gradients(Tensor dy, Maybe dmixed, Tensor x, Tensor weight, Maybe bias, int64_t streams,
                                           int64_t ahead, Tensor dx) {
    ShortParams p = short_params(x, weight, bias, streams, ahead);
    dy = *in_rows(dy), dmixed = in_rows(dmixed);
    const int64_t channels = weight.size(0);
    const Tensor dweight = torch::stable::new_empty(weight, weight.sizes());
    const Tensor dbias = torch::stable::new_empty(weight, {&channels, 1}), scratch = bytes(x, short_scratch_bytes(p));
    p.dy = rows(dy), p.dmixed = rows(dmixed);
    p.dx = {dx.data_ptr(), dx.stride(0), dx.stride(1), dx.stride(2)};
    p.dweight = static_cast<float*>(dweight.data_ptr()), p.dbias = static_cast<float*>(dbias.data_ptr());
    p.scratch = scratch.data_ptr();
    launch(short_backward, p, x);
    return {dweight, dbias};
}

bool has_short_kernels(int64_t dtype) { return has_short(int(dtype)); }

int64_t plan_of(int64_t length, int64_t precision) { return plan_length(length, int(precision)); }

bool has_plan(int64_t plan, int64_t dtype, int64_t precision) { return has_kernels(plan, int(dtype), int(precision)); }

}  // namespace

STABLE_TORCH_LIBRARY(dnasm_cuda, m) {
    m.def("plan_length(int length, int precision) -> int");
    m.def("has_kernels(int plan, int dtype, int precision) -> bool");
    m.def("spectrum(Tensor k, int length, int dtype, int precision) -> Tensor");
    m.def("convolve(Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, Tensor? values, "
          "int precision) -> (Tensor, Tensor)");
    m.def("gradients(Tensor dy, Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, Tensor? values, "
          "int precision, int needs) -> (Tensor?, Tensor?, Tensor?, Tensor?, Tensor?)");
    m.def("convolve_packed(Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, Tensor starts, "
          "Tensor ends, int longest, int precision, Tensor(a!) y) -> ()");
    m.def("gradients_packed(Tensor dy, Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, "
          "Tensor starts, Tensor ends, int longest, int precision, int needs, Tensor(a!)? du, Tensor(b!)? din_gate, "
          "Tensor(c!)? dout_gate) -> (Tensor?, Tensor?)");
    m.def("has_short(int dtype) -> bool");
    m.def("short_convolve(Tensor x, Tensor weight, Tensor? bias, int streams, int ahead) -> (Tensor, Tensor?)");
    m.def("short_gradients(Tensor dy, Tensor? dmixed, Tensor x, Tensor weight, Tensor? bias, int streams, int ahead, "
          "Tensor(a!) dx) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(dnasm_cuda, CompositeExplicitAutograd, m) {
    m.impl("plan_length", TORCH_BOX(&plan_of));
    m.impl("has_kernels", TORCH_BOX(&has_plan));
    m.impl("spectrum", TORCH_BOX(&spectrum_of));
    m.impl("convolve", TORCH_BOX(&convolve));
    m.impl("gradients", TORCH_BOX(&gradients));
    m.impl("convolve_packed", TORCH_BOX(&convolve_packed));
    m.impl("gradients_packed", TORCH_BOX(&gradients_packed));
    m.impl("has_short", TORCH_BOX(&has_short_kernels));
    m.impl("short_convolve", TORCH_BOX(&short_convolve));
    m.impl("short_gradients", TORCH_BOX(&short_gradients));
}
#endif  // DNASM_CUDA
