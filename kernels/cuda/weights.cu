// Parameters: their copy in the form that is computed with, their gradients in the flat layout, and the optimizer.
//
// Flat buffers hold filters as [out][in][rows x columns] floats. Computing wants T, [out][rows x columns][in], with the three 1x1
// convolutions of a module side by side; so each parameter has a place in a second buffer, `filters`.

// A parameter: elements of the flat buffer from `from` on, and where its filters begin (-1: it has none there).
struct Segment {
    int from, length, to, in, taps;
    float rate, decay;
    int unused;
};

// What a block does: 1024 elements of a segment from `first` on.
struct Part {
    int segment, first;
};

// The place of a flat element [out][in][taps] in [out][taps][in].
DEVICE int in_filters(int element, int in, int taps) {
    if (taps == 1) return element;
    const int tap = element % taps, rest = element / taps;
    return (rest / in * taps + tap) * in + rest % in;
}

// The filters of parameters that were loaded.
KERNEL(256) cast_filters(const float *params, T *filters, const Segment *segments, const Part *parts) {
    const Part part = parts[blockIdx.x];
    const Segment segment = segments[part.segment];
    if (segment.to < 0) return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int element = part.first + 256 * i + threadIdx.x;
        if (element < segment.length) put(filters + segment.to + in_filters(element, segment.in, segment.taps), params[segment.from + element]);
    }
}
EXPORT(cast_filters)

// Sets `bad` if a number is not finite. Threads that write it write the same.
KERNEL(256) find_bad(const float *numbers, int *bad, int count) {
    bool found = false;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int at = blockIdx.x * 2048 + 256 * i + threadIdx.x;
        if (at < count) found = found || !finite(numbers[at]);
    }
    if (found) *bad = 1;
}
EXPORT(find_bad)

// Caffe's stochastic gradient descent (BVLC/caffe sgd_solver.cpp) with the mean gradient, `scale` times the sum, of the flat elements
// from `start` on; and their filters. Nothing is changed where `bad` is set.
KERNEL(256) sgd(float *params, float *velocity, const float *gradient, T *filters, const Segment *segments, const Part *parts,
                const int *bad, int start, float scale, float rate, float momentum, float decay) {
    if (*bad) return;
    const Part part = parts[blockIdx.x];
    const Segment segment = segments[part.segment];
    const float own_rate = rate * segment.rate, own_decay = decay * segment.decay;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int element = part.first + 256 * i + threadIdx.x, at = segment.from + element;
        if (element >= segment.length) continue;
        const float w = params[at], g = gradient[at - start] * scale + own_decay * w;
        const float v = momentum * velocity[at] + own_rate * g, moved = w - v;
        velocity[at] = v;
        params[at] = moved;
        if (segment.to >= 0) put(filters + segment.to + in_filters(element, segment.in, segment.taps), moved);
    }
}
EXPORT(sgd)

// A gradient by filters [out][taps][in], as float (`wide`) or T, and its elements in the flat gradient from `to` on.
struct Source {
    const void *from;
    int wide, to, length, in, taps, unused;
};

// As many as a bucket of the flat gradient has.
struct Sources {
    Source source[20];
#ifdef FOVEA_EMULATION
    template <class Visit> void pointers(Visit visit) {
        for (Source &s : source) visit(s.from);
    }
#endif
};

// Gradients in the flat layout. blockIdx.y is the source, a block handles 1024 of its elements.
KERNEL(256) collect(Sources all, float *gradient) {
    const Source source = all.source[blockIdx.y];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int element = 1024 * blockIdx.x + 256 * i + threadIdx.x;
        if (element >= source.length) continue;
        const int at = in_filters(element, source.in, source.taps);
        gradient[source.to + element] = source.wide ? ((const float *)source.from)[at] : value(((const T *)source.from)[at]);
    }
}
EXPORT(collect)
