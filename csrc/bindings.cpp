// The only file that includes torch headers. It turns tensors into the plain structs of fftconv/launch.h and short/short.h,
// on torch's stable ABI, so that one build serves torch 2.10 and later. Two libraries are made of it: the CUDA kernels'
// and, with DNASM_CPU, the CPU's, whose functions have the same names and take the same structs.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>

#ifdef DNASM_CPU
#include "cpu/fftconv.h"
#include "cpu/shortconv.h"
#else
#include "fftconv/launch.h"
#include "short/short.h"
// Weak: torch without CUDA lacks it, and Python loads libraries with every symbol resolved at once.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#endif

namespace {

using namespace dnasm;
using torch::stable::Tensor;
using torch::headeronly::ScalarType;
using Maybe = std::optional<Tensor>;

int dtype_of(const Tensor& t) {
    switch (t.scalar_type()) {
        case ScalarType::Float: return kFloat32;
        case ScalarType::Half: return kFloat16;
        case ScalarType::BFloat16: return kBfloat16;
        case ScalarType::Double: return kFloat64;
        default: STD_TORCH_CHECK(false, "the kernels take floating point tensors");
    }
}

void* pointer(const Maybe& t) { return t ? t->data_ptr() : nullptr; }
float* floats(const Maybe& t) { return static_cast<float*>(pointer(t)); }
Rows rows(const Maybe& t) { return t ? Rows{t->data_ptr(), t->stride(0), t->stride(1)} : Rows{}; }
Strided strided(const Tensor& t) { return {t.data_ptr(), t.stride(0), t.stride(1), t.stride(2)}; }

Tensor gapless(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }  // asking torch takes time

// Samples side by side; rows may lie anywhere. Others are copied once: a row read with a stride costs a line a sample.
Maybe in_rows(const Maybe& t) {
    return !t || t->stride(2) == 1 || t->size(2) == 1 ? t : Maybe(gapless(*t));
}

Tensor as_floats(const Tensor& t) {  // float32, contiguous
    return gapless(t.scalar_type() == ScalarType::Float ? t : torch::stable::to(t, ScalarType::Float));
}

Tensor bytes(const Tensor& like, size_t n) {
    const auto size = static_cast<int64_t>(n);
    return torch::stable::new_empty(like, {&size, 1}, ScalarType::Byte);
}

#ifdef DNASM_CPU

using cpu::Params, cpu::ShortParams;
using cpu::filter_spectrum, cpu::short_backward, cpu::short_forward, cpu::spectrum_bytes;
using How = Tensor;                    // a layout of the work
constexpr bool kKeepsSpectra = false;  // a channel's is made when its rows are met

// Flat integers from dnasm/ops/cpu.py: for each group the plan's length, the count and list of its radices, the count
// of pieces, and start and end of each.
void set_how(Params& p, const Tensor& layout) {
    const auto* at = static_cast<const int64_t*>(layout.data_ptr());
    const auto* end = at + layout.numel();
    while (at < end) {
        cpu::Group group{*at++, {}, {}};
        for (int64_t n = *at++; n > 0; --n) group.radices.push_back(int(*at++));
        for (int64_t n = *at++; n > 0; --n, at += 2) group.pieces.emplace_back(at[0], at[1]);
        p.groups.push_back(std::move(group));
    }
}

class TorchThreads final : public cpu::Threads {
  public:
    void run(int64_t workers, void (*body)(int64_t, void*), void* context) override {
        torch::stable::parallel_for(0, workers, 1, [=](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) body(i, context);
        });
    }
};

// Calls one of the CPU's functions, with torch's threads.
template <class P> void launch(void (*function)(const P&), P& p, const Tensor&) {
    static TorchThreads threads;
    p.crew = {&threads, torch::stable::get_num_threads()};
    function(p);
}

void run(Params& p, bool back, const Tensor& on) { launch(back ? cpu::backward : cpu::forward, p, on); }

size_t short_scratch_bytes(const ShortParams&) { return 0; }

#else  // CUDA

using How = int64_t;  // precision
constexpr bool kKeepsSpectra = true;

void set_how(Params& p, int64_t precision) { p.precision = int(precision); }

// Calls a launching function on the tensors' device and its current stream; kernels of csrc/host run on CPU tensors.
template <class P> void launch(const char* (*function)(const P&), P& p, const Tensor& on) {
    std::optional<torch::stable::accelerator::DeviceGuard> guard;
    if (on.is_cuda()) {
        STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, "this torch has no CUDA");
        guard.emplace(on.get_device_index());
        STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &p.stream) == 0, "no CUDA stream");
    }
    const char* error = function(p);
    STD_TORCH_CHECK(!error, error ? error : "");
}

// One direction, in scratch memory that is given back at once: what comes next on the stream comes later.
void run(Params& p, bool back, const Tensor& on) {
    const bool direct = p.precision == kDirect;
    const size_t size = back ? (direct ? direct_scratch_bytes : backward_scratch_bytes)(p)
                             : direct ? 0 : forward_scratch_bytes(p);
    const Maybe memory = size ? Maybe(bytes(on, size)) : std::nullopt;
    p.scratch = pointer(memory);
    if (back) launch(direct ? direct_backward : backward, p, on);
    else launch(direct ? direct_forward : forward, p, on);
}

#endif

// The tensors of one call, as the kernels read them. Python has said what is wrong with others; here nothing is believed.
struct Call {
    Tensor u, k;
    Maybe in_gate, out_gate, skip;
    Params p{};

    Call(const Tensor& signal, const Tensor& filter, const Maybe& input_gate, const Maybe& output_gate,
         const Maybe& skip_weights, const How& how)
        : u(signal), k(filter) {
        STD_TORCH_CHECK(u.dim() == 3, "u: (batch, channels, length)");
        STD_TORCH_CHECK((k.dim() == 2 || (k.dim() == 3 && k.size(1) == 2)) && k.size(0) == u.size(1), "k: not u's channels");
        near(k, "k");
        u = *in_rows(u);
        k = gapless(k);
        in_gate = like_u(input_gate, "in_gate"), out_gate = like_u(output_gate, "out_gate");
        if (skip_weights) {
            STD_TORCH_CHECK(skip_weights->dim() == 1 && skip_weights->size(0) == u.size(1), "skip: not u's channels");
            near(*skip_weights, "skip");
            skip = as_floats(*skip_weights);
        }
        p.batch = u.size(0), p.channels = u.size(1), p.length = u.size(2);
        p.dtype = dtype_of(u);
        p.u = rows(u), p.in_gate = rows(in_gate), p.out_gate = rows(out_gate), p.skip = floats(skip);
        set_filter(p, k);
        set_how(p, how);
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
    Maybe like_u(const Maybe& t, const char* name) const {
        if (!t) return t;
        STD_TORCH_CHECK(t->dim() == 3 && t->scalar_type() == u.scalar_type(), name, ": not like u");
        for (int i = 0; i < 3; ++i) STD_TORCH_CHECK(t->size(i) == u.size(i), name, ": not like u");
        near(*t, name);
        return in_rows(t);
    }
    // k's spectrum: the caller's, if it is of this length, else made now if the kernels want all of it at once.
    Maybe spectrum(const Maybe& known) {
        const size_t n = p.precision == kDirect ? 0 : spectrum_bytes(p);
        const bool fits = n && known && static_cast<size_t>(known->numel()) == n;
        if (!n || !(fits || kKeepsSpectra)) return std::nullopt;
        const Maybe values = fits ? known : bytes(u, n);
        p.spectrum = pointer(values);
        if (!fits) launch(filter_spectrum, p, u);
        return values;
    }
    Tensor signal() const { return torch::stable::new_empty(u, u.sizes()); }

    void forward_into(const Tensor& y) {
        p.y = rows(y);
        run(p, false, u);
    }
    // The gradients of signals into tensors that are there, those of k and skip into new ones: bit i of `needs` asks for i.
    std::tuple<Maybe, Maybe> backward_into(const Tensor& dy, int64_t needs, const Maybe& du, const Maybe& din, const Maybe& dout) {
        const auto sums = [&](int i, const Maybe& of) {
            if (!(needs >> i & 1) || !of) return Maybe();
            return Maybe(torch::stable::new_empty(*of, of->sizes(), ScalarType::Float));
        };
        const Maybe g = like_u(dy, "dy"), dk = sums(1, k), dskip = sums(4, skip);
        p.dy = rows(g), p.du = rows(du), p.din_gate = rows(din), p.dout_gate = rows(dout);
        p.dk = floats(dk), p.dskip = floats(dskip);
        run(p, true, u);
        return {dk, dskip};
    }
};

Tensor spectrum_of(Tensor k, int64_t length, int64_t dtype, How how) {
    Params p{};
    p.batch = 1, p.channels = k.size(0), p.length = length, p.dtype = int(dtype);
    k = gapless(k);
    Call::set_filter(p, k);
    set_how(p, how);
    Tensor values = bytes(k, spectrum_bytes(p));
    p.spectrum = values.data_ptr();
    launch(filter_spectrum, p, k);
    return values;
}

// y, and the spectrum that it took, if any.
std::tuple<Tensor, Maybe> convolve(Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip, Maybe values, How how) {
    Call call(u, k, in_gate, out_gate, skip, how);
    const Maybe spectrum = call.spectrum(values);
    Tensor y = call.signal();
    call.forward_into(y);
    return {y, spectrum};
}

// The gradients of u, k, in_gate, out_gate and skip; bit i of `needs` asks for the ith.
std::tuple<Maybe, Maybe, Maybe, Maybe, Maybe> gradients(Tensor dy, Tensor u, Tensor k, Maybe in_gate, Maybe out_gate,
                                                        Maybe skip, Maybe values, How how, int64_t needs) {
    Call call(u, k, in_gate, out_gate, skip, how);
    const Maybe spectrum = call.spectrum(values);
    const auto blank = [&](int i, bool there) { return needs >> i & 1 && there ? Maybe(call.signal()) : std::nullopt; };
    const auto narrowed = [](const Maybe& sum, const Maybe& of) {
        return sum && of->scalar_type() != sum->scalar_type() ? Maybe(torch::stable::to(*sum, of->scalar_type())) : sum;
    };
    const Maybe du = blank(0, true), din = blank(2, bool(in_gate)), dout = blank(3, bool(out_gate));
    const auto [dk, dskip] = call.backward_into(dy, needs, du, din, dout);
    return {du, narrowed(dk, k), din, dout, narrowed(dskip, skip)};
}

ShortParams short_params(const Tensor& x, const Tensor& weight, const Maybe& bias, int64_t streams, int64_t ahead) {
    STD_TORCH_CHECK(x.dim() == 3 && weight.dim() == 2 && weight.size(0) == x.size(1), "weight: not x's channels");
    STD_TORCH_CHECK(streams > 0 && x.size(1) % streams == 0, "x: channels of ", streams, " streams");
    ShortParams p{};
    p.batch = x.size(0), p.channels = x.size(1) / streams, p.length = x.size(2);
    p.streams = int(streams), p.taps = int(weight.size(1)), p.ahead = int(ahead), p.dtype = dtype_of(x);
    p.x = strided(x), p.weight = floats(weight), p.bias = floats(bias);  // float32 and contiguous
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
    p.dy = rows(dy), p.dmixed = rows(dmixed), p.dx = strided(dx);
    p.dweight = floats(dweight), p.dbias = floats(dbias), p.scratch = scratch.data_ptr();
    launch(short_backward, p, x);
    return {dweight, dbias};
}

#ifndef DNASM_CPU

// Packed sequences of `longest` samples or fewer share each row: int64 bounds on u's device, read by the kernels alone.
struct Packed : Call {
    Tensor starts, ends;

    Packed(const Tensor& u, const Tensor& k, const Maybe& in_gate, const Maybe& out_gate, const Maybe& skip,
           const Tensor& first, const Tensor& behind, int64_t longest, int64_t precision)
        : Call(u, k, in_gate, out_gate, skip, precision),
          starts(gapless(first)), ends(gapless(behind)) {
        for (const Tensor* t : {&starts, &ends}) {
            const bool fits = t->scalar_type() == ScalarType::Long && t->dim() == 1 && t->numel() == starts.numel();
            STD_TORCH_CHECK(fits && t->numel() > 0, "bounds: int64");
            near(*t, "bounds");
        }
        p.starts = static_cast<const int64_t*>(starts.data_ptr());
        p.ends = static_cast<const int64_t*>(ends.data_ptr());
        p.segments = starts.numel(), p.packed_length = p.length;
        p.batch *= p.segments, p.length = longest;
    }
};

// `convolve` and `gradients`, into tensors that may hold other sequences' results already.
void convolve_packed(Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip, Tensor starts, Tensor ends,
                     int64_t longest, int64_t precision, Tensor y) {
    Packed call(u, k, in_gate, out_gate, skip, starts, ends, longest, precision);
    const Maybe spectrum = call.spectrum(std::nullopt);
    call.forward_into(y);
}

std::tuple<Maybe, Maybe> gradients_packed(Tensor dy, Tensor u, Tensor k, Maybe in_gate, Maybe out_gate, Maybe skip,
                                          Tensor starts, Tensor ends, int64_t longest, int64_t precision, int64_t needs,
                                          Maybe du, Maybe din_gate, Maybe dout_gate) {
    Packed call(u, k, in_gate, out_gate, skip, starts, ends, longest, precision);
    const Maybe spectrum = call.spectrum(std::nullopt);
    return call.backward_into(dy, needs, du, din_gate, dout_gate);
}

bool has_short_kernels(int64_t dtype) { return has_short(int(dtype)); }
int64_t plan_of(int64_t length, int64_t precision) { return plan_length(length, int(precision)); }
bool has_plan(int64_t plan, int64_t dtype, int64_t precision) { return has_kernels(plan, int(dtype), int(precision)); }

#endif

struct Operator {
    const char *name, *schema;
    void (*call)(StableIValue*, uint64_t, uint64_t);
};

#ifdef DNASM_CPU
#define DNASM_LIBRARY dnasm_cpu
#define DNASM_HOW "Tensor layout"
#else
#define DNASM_LIBRARY dnasm_cuda
#define DNASM_HOW "int precision"
#endif
#define DNASM_OPERANDS "Tensor u, Tensor k, Tensor? in_gate, Tensor? out_gate, Tensor? skip, "
#define DNASM_SHORT "Tensor x, Tensor weight, Tensor? bias, int streams, int ahead"

const Operator kOperators[] = {
    {"spectrum", "(Tensor k, int length, int dtype, " DNASM_HOW ") -> Tensor", TORCH_BOX(&spectrum_of)},
    {"convolve", "(" DNASM_OPERANDS "Tensor? values, " DNASM_HOW ") -> (Tensor, Tensor?)", TORCH_BOX(&convolve)},
    {"gradients", "(Tensor dy, " DNASM_OPERANDS "Tensor? values, " DNASM_HOW ", int needs) -> "
     "(Tensor?, Tensor?, Tensor?, Tensor?, Tensor?)", TORCH_BOX(&gradients)},
    {"short_convolve", "(" DNASM_SHORT ") -> (Tensor, Tensor?)", TORCH_BOX(&short_convolve)},
    {"short_gradients", "(Tensor dy, Tensor? dmixed, " DNASM_SHORT ", Tensor(a!) dx) -> (Tensor, Tensor)",
     TORCH_BOX(&short_gradients)},
#ifndef DNASM_CPU
    {"convolve_packed", "(" DNASM_OPERANDS "Tensor starts, Tensor ends, int longest, int precision, Tensor(a!) y) -> ()",
     TORCH_BOX(&convolve_packed)},
    {"gradients_packed", "(Tensor dy, " DNASM_OPERANDS "Tensor starts, Tensor ends, int longest, int precision, int needs, "
     "Tensor(a!)? du, Tensor(b!)? din_gate, Tensor(c!)? dout_gate) -> (Tensor?, Tensor?)", TORCH_BOX(&gradients_packed)},
    {"plan_length", "(int length, int precision) -> int", TORCH_BOX(&plan_of)},
    {"has_kernels", "(int plan, int dtype, int precision) -> bool", TORCH_BOX(&has_plan)},
    {"has_short", "(int dtype) -> bool", TORCH_BOX(&has_short_kernels)},
#endif
};

}  // namespace

STABLE_TORCH_LIBRARY(DNASM_LIBRARY, m) {
    for (const Operator& each : kOperators) m.def((std::string(each.name) + each.schema).c_str());
}
STABLE_TORCH_LIBRARY_IMPL(DNASM_LIBRARY, CompositeExplicitAutograd, m) {
    for (const Operator& each : kOperators) m.impl(each.name, each.call);
}
