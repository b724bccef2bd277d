// The whole surface of the CUDA long convolution: one plain struct, a few plain functions, no torch.
//
//   y = out_gate * (conv(x, k) + skip * x),   x = in_gate * u,   lags from 0 (or both ways), cut to `length`
//
// Order of calls:
//   1. size_t n = spectrum_bytes(p);      allocate n bytes, p.spectrum = them, 64-byte aligned
//   2. filter_spectrum(p);                reads p.filter; the spectrum may be kept and used for any batch of this length
//   3. forward(p)                         reads u, in_gate, out_gate, skip, spectrum; writes y
//   4. backward(p)                        reads those and dy; writes whichever of du, din_gate, dout_gate, dk, dskip is not null
// forward_scratch_bytes / backward_scratch_bytes may answer 0; else p.scratch holds that many bytes, 64-byte aligned,
// with any contents. Nothing allocates, synchronises or keeps state, so every call can be captured in a CUDA graph.
//
// Every function that returns `const char*` returns nullptr for success, else what was wrong (a string that lives for ever).
// Nothing throws. The caller sets the device; `stream` is a cudaStream_t.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dnasm {

enum Dtype : int { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2, kFloat64 = 3 };

enum Precision : int {
  kFast = 0,     // fp16 operands, fp32 sums, one power-of-two scale a row: u in bf16, fp16 or fp32
  kPrecise = 1,  // float32 arithmetic throughout, 1e-5 and better
};

// A (batch, channels, length) tensor whose last stride is 1; strides in elements. Null data: the tensor is absent.
struct Rows {
  void* data;
  int64_t stride_b, stride_d;
};

struct Params {
  int64_t batch, channels, length;

  // (channels, filter_length), or (channels, 2, filter_length) when bidirectional: the past with lag 0, the future from
  // lag 1. Any Dtype, contiguous; taps beyond `length` are ignored.
  const void* filter;
  int64_t filter_length;
  int filter_dtype;
  bool bidirectional;

  int dtype;      // of every Rows below; every function needs it, and `length`
  int precision;  // Precision; the spectrum is made for one precision
  Rows u, in_gate, out_gate, y;
  Rows dy, du, din_gate, dout_gate;  // dout_gate needs out_gate, din_gate needs in_gate
  const float* skip;                 // (channels) or null
  float* dk;                         // shape of filter, float32, contiguous, or null
  float* dskip;                      // (channels) or null

  // Packed sequences, where `starts` is not null: `segments` of them share each row, segment i from sample starts[i] to
  // ends[i] of `packed_length`, both in device memory. `batch` then counts rows times segments, and `length` is the longest
  // segment that is computed: what a longer one, or one outside of its row, has beyond that is left alone.
  const int64_t *starts, *ends;
  int64_t segments, packed_length;

  void* spectrum;  // opaque: tables, one scale a channel, the filters' spectra
  void* scratch;
  void* stream;
};

// The transform's length for sequences of `length` (a power of two), or 0 where no kernel covers it.
int64_t plan_length(int64_t length, int precision);

size_t spectrum_bytes(const Params& p);
size_t forward_scratch_bytes(const Params& p);
size_t backward_scratch_bytes(const Params& p);

const char* filter_spectrum(const Params& p);
const char* forward(const Params& p);
const char* backward(const Params& p);

// The kernels of one (plan length, dtype) live in an object of their own, compiled from instance.cu with
// -DDNASM_LENGTH=4096 -DDNASM_DTYPE=2 (for the float32 route -DDNASM_PRECISION=1 besides); linked beside launch.o (or loaded later) it announces itself. Without it every
// function above answers 0 or an error for that length and dtype; has_kernels asks.
struct Kernels {
  size_t (*spectrum_bytes)(const Params&);
  size_t (*forward_scratch_bytes)(const Params&);
  size_t (*backward_scratch_bytes)(const Params&);
  const char* (*filter_spectrum)(const Params&);
  const char* (*forward)(const Params&);
  const char* (*backward)(const Params&);
};
void register_kernels(int64_t plan_length, int dtype, const Kernels& kernels, int precision = kFast);
bool has_kernels(int64_t plan_length, int dtype, int precision = kFast);

}  // namespace dnasm
