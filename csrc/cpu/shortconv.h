// Depthwise convolution with a few taps, on a CPU, free of torch.
#pragma once
#include "fftconv.h"

namespace dnasm::cpu {

// c[t] = bias + sum_j weight[j] x[t + j - (taps - 1) + ahead], x zero outside. With one stream y = c. With three, whose
// channels follow one another in x, weight and bias: y is c of the first, mixed the product of the other two's.
struct ShortParams {
    int64_t batch, channels, length, taps;  // channels of one stream
    int64_t streams, ahead;
    View x, y, mixed;              // forward; backward reads x
    const float* weight;           // (streams * channels, taps)
    const float* bias = nullptr;   // (streams * channels) or null
    View dy, dmixed, dx;           // backward
    float* dweight = nullptr;      // as weight, zero on entry
    float* dbias = nullptr;        // as bias, zero on entry
    Crew crew;
};

constexpr int64_t kMaxTaps = 64;

void short_forward(const ShortParams& params);
void short_backward(const ShortParams& params);

}  // namespace dnasm::cpu
