#include "shortconv.h"

#include <algorithm>
#include <vector>

#include "rows.h"
#include "vector.h"

namespace dnasm::cpu {
namespace {

constexpr int64_t kSpan = 512;        // positions of a row that are worked on at a time
constexpr int64_t kChannels = 16;     // channels of a block: one cache line where the channels are neighbours in memory
constexpr int64_t kEdge = 2 * kMaxTaps;  // positions that a span sees of its neighbours

using Buffer = float[kSpan + kEdge];  // a span of one channel

struct Channels {
    int64_t first, count;
};

// Whether channels and not positions lie side by side, as in a (batch, length, channels) projection: then they are the
// inner loop, so that such a view is read once and not once a channel.
bool by_position(const Strided& v) { return v.stride_d == 1 && v.stride_l != 1; }
Strided turned(const Strided& v) { return {v.data, v.stride_b, v.stride_l, v.stride_d}; }

template <class Body> void share(const ShortParams& p, Body body) {  // body(first channel, channels)
    p.crew.each((p.channels + kChannels - 1) / kChannels, [&](int64_t block, int64_t) {
        body(block * kChannels, std::min(kChannels, p.channels - block * kChannels));
    });
}

float dot(const float* a, const float* b, int64_t n) {
    Vec sums = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) sums += load(a + i) * load(b + i);
    float sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
    for (; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

// What a thread works with: the channels of one block of one row, and buffers for each of them.
struct Block {
    const ShortParams& p;
    Channels which;
    int64_t b = 0, past;
    std::vector<float> memory;

    Block(const ShortParams& params, int64_t first, int64_t count, int buffers)
        : p(params), which{first, count}, past(params.taps - 1 - params.ahead),
          memory(size_t(buffers * kChannels) * (sizeof(Buffer) / sizeof(float))) {}
    Buffer* buffer(int i) { return reinterpret_cast<Buffer*>(memory.data()) + i * kChannels; }
    Channels channels(int64_t stream) const { return {stream * p.channels + which.first, which.count}; }
    const float* taps(int64_t stream, int64_t c) const { return p.weight + (channels(stream).first + c) * p.taps; }
    // Positions [at, at + n) of some channels, zero outside the tensor.
    void gather(const Strided& v, Channels from, int64_t at, int64_t n, Buffer* to) const {
        const int64_t begin = std::clamp<int64_t>(-at, 0, n), end = std::clamp<int64_t>(p.length - at, begin, n);
        for (int64_t c = 0; c < from.count; ++c) {
            std::fill(to[c], to[c] + begin, 0.0f);
            std::fill(to[c] + end, to[c] + n, 0.0f);
            if (!by_position(v)) read(row_of(v, p.dtype, b, from.first + c), at + begin, end - begin, to[c] + begin);
        }
        for (int64_t i = begin; i < end && by_position(v); ++i) {
            float line[kChannels];
            read(row_of(turned(v), p.dtype, b, at + i), from.first, from.count, line);
            for (int64_t c = 0; c < from.count; ++c) to[c][i] = line[c];
        }
    }
    void scatter(const Strided& v, Channels to, int64_t at, int64_t n, const Buffer* from) const {
        for (int64_t c = 0; c < to.count && !by_position(v); ++c) write(row_of(v, p.dtype, b, to.first + c), at, n, from[c]);
        for (int64_t i = 0; i < n && by_position(v); ++i) {
            float line[kChannels];
            for (int64_t c = 0; c < to.count; ++c) line[c] = from[c][i];
            write(row_of(turned(v), p.dtype, b, at + i), to.first, to.count, line);
        }
    }
    // y = the convolution of a stream at [at, at + n), from x, which is read from `past` before to `ahead` behind.
    void convolve(int64_t stream, int64_t at, int64_t n, Buffer* x, Buffer* y) {
        gather(p.x, channels(stream), at - past, n + p.taps - 1, x);
        for (int64_t c = 0; c < which.count; ++c) {
            const float* w = taps(stream, c);
            std::fill(y[c], y[c] + n, p.bias ? p.bias[channels(stream).first + c] : 0.0f);
            for (int64_t j = 0; j < p.taps; ++j)
                for (int64_t i = 0; i < n; ++i) y[c][i] += w[j] * x[c][i + j];
        }
    }
};

void multiply(Buffer* y, const Buffer* by, int64_t channels, int64_t n) {
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < n; ++i) y[c][i] *= by[c][i];
}

// The gradient of one stream's x at [at, at + n), and its part in the sums for weight and bias. d: the gradient of its
// convolution from `ahead` before to `past` behind; x: the stream itself from taps - 1 before.
void pull_back(Block& me, int64_t stream, int64_t at, int64_t n, const Buffer* d, const Buffer* x, Buffer* dx, double* sums) {
    const ShortParams& p = me.p;
    for (int64_t c = 0; c < me.which.count; ++c) {
        const float* w = me.taps(stream, c);
        double* sum = sums + (stream * kChannels + c) * (p.taps + 1);
        if (p.dx.data) std::fill(dx[c], dx[c] + n, 0.0f);
        for (int64_t j = 0; j < p.taps; ++j) {
            if (p.dx.data)
                for (int64_t i = 0; i < n; ++i) dx[c][i] += w[j] * d[c][i + p.taps - 1 - j];
            if (p.dweight) sum[j] += dot(d[c] + p.ahead, x[c] + p.ahead + j, n);
        }
        for (int64_t i = 0; i < n && p.dbias; ++i) sum[p.taps] += d[c][i + p.ahead];
    }
    if (p.dx.data) me.scatter(p.dx, me.channels(stream), at, n, dx);
}

}  // namespace

void short_forward(const ShortParams& p) {
    share(p, [&](int64_t first, int64_t channels) {
        Block me(p, first, channels, 3);
        Buffer *x = me.buffer(0), *y = me.buffer(1), *other = me.buffer(2);
        for (me.b = 0; me.b < p.batch; ++me.b)
            for (int64_t at = 0; at < p.length; at += kSpan) {
                const int64_t n = std::min(kSpan, p.length - at);
                me.convolve(0, at, n, x, y);
                me.scatter(strided(p.y), me.which, at, n, y);
                if (p.streams == 1) continue;
                me.convolve(1, at, n, x, y);
                me.convolve(2, at, n, x, other);
                multiply(y, other, channels, n);
                me.scatter(strided(p.mixed), me.which, at, n, y);
            }
    });
}

void short_backward(const ShortParams& p) {
    const int64_t edge = p.taps - 1;
    share(p, [&](int64_t first, int64_t channels) {
        Block me(p, first, channels, 6);
        Buffer *x = me.buffer(0), *d = me.buffer(1), *dx = me.buffer(2);
        Buffer *x2 = me.buffer(3), *c1 = me.buffer(4), *c2 = me.buffer(5);
        std::vector<double> sums(size_t(p.streams * kChannels * (p.taps + 1)));
        for (me.b = 0; me.b < p.batch; ++me.b)
            for (int64_t at = 0; at < p.length; at += kSpan) {
                const int64_t n = std::min(kSpan, p.length - at);
                me.gather(strided(p.dy), me.which, at - p.ahead, n + edge, d);
                me.gather(p.x, me.channels(0), at - edge, n + 2 * edge, x);
                pull_back(me, 0, at, n, d, x, dx, sums.data());
                if (p.streams == 1) continue;
                me.gather(strided(p.dmixed), me.which, at - p.ahead, n + edge, d);
                me.convolve(1, at - p.ahead, n + edge, x, c1);
                me.convolve(2, at - p.ahead, n + edge, x2, c2);
                multiply(c1, d, channels, n + edge);
                multiply(c2, d, channels, n + edge);
                pull_back(me, 1, at, n, c2, x, dx, sums.data());
                pull_back(me, 2, at, n, c1, x2, dx, sums.data());
            }
        for (int64_t stream = 0; stream < p.streams; ++stream)
            for (int64_t c = 0; c < channels; ++c) {
                const double* sum = sums.data() + (stream * kChannels + c) * (p.taps + 1);
                const int64_t row = stream * p.channels + first + c;
                for (int64_t j = 0; j < p.taps && p.dweight; ++j) p.dweight[row * p.taps + j] = float(sum[j]);
                if (p.dbias) p.dbias[row] = float(sum[p.taps]);
            }
    });
}

}  // namespace dnasm::cpu
