// The surface of the kernels for a few taps: the depthwise short convolution, and the three of a Hyena operator with the
// gate between them. As in fftconv/launch.h, functions answer nullptr for success and never allocate or synchronise.
#pragma once

#include "../fftconv/launch.h"

namespace dnasm {

// A (batch, channels, length) tensor of any strides, in elements.
struct Strided {
  void* data;
  int64_t stride_b, stride_d, stride_l;
};

// c[t] = bias + sum_j weight[j] x[t + j - (taps - 1) + ahead], x zero outside. With one stream y = c. With three, whose
// channels follow one another in x, weight and bias: y is c of the first, mixed the product of the other two's.
struct ShortParams {
  int64_t batch, channels, length;  // channels of one stream
  int streams, taps, ahead, dtype;
  Strided x;
  const float *weight, *bias;  // (streams * channels, taps); (streams * channels) or null
  Rows y, mixed;
  Rows dy, dmixed;             // backward
  Strided dx;                  // or null
  float *dweight, *dbias;      // as weight and bias
  void *scratch, *stream;
};
constexpr int kMostShortTaps = 8;

size_t short_scratch_bytes(const ShortParams& p);  // of backward
const char* short_forward(const ShortParams& p);
const char* short_backward(const ShortParams& p);

// The long convolution of launch.h with a filter of few taps, by products in place of transforms: `spectrum` is not read.
constexpr int kDirect = 2;  // its number beside launch.h's Precision, for callers who choose between the two
constexpr int64_t kMostDirectTaps = 1024;  // of either side
size_t direct_scratch_bytes(const Params& p);  // of backward
const char* direct_forward(const Params& p);
const char* direct_backward(const Params& p);

// The kernels of one dtype live in an object of their own, compiled from short.cu with -DDNASM_DTYPE=2, as those of a plan.
struct ShortKernels {
  size_t (*scratch_bytes)(const ShortParams&);
  const char* (*forward)(const ShortParams&);
  const char* (*backward)(const ShortParams&);
  size_t (*direct_scratch_bytes)(const Params&);  // null for float32
  const char* (*direct_forward)(const Params&);
  const char* (*direct_backward)(const Params&);
};
void register_short(int dtype, const ShortKernels& kernels);
bool has_short(int dtype);

}  // namespace dnasm
