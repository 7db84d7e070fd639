/* What takes the most time of a training step, forward and backward: 3 x 3 convolutions (convolutions.inc), and what
 * follows one (blocks.inc) in one go over the images: an activation that is linear on both sides of nought (PReLU and its
 * kin), channel dropout, batch normalization, and 2 x 2 max-pooling.
 *
 * The functions are compiled for any processor, for two levels of x86, and for each type of elements. Channels are last
 * in memory, and their number is a multiple of 16, the most LANES; for a convolution that of 8 will do, but for the
 * outputs of convolution_backward, which takes one or three inputs as well.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

/* A sum has this many parts, whatever the number of threads, so that it always comes to the same bits. */
#define PARTS 64
/* The first line of a part. */
#define START(part, lines) ((part) * (lines) / PARTS)
/* Fewer elements are not worth a second thread. */
#define SERIAL 32768

typedef float float32;
typedef uint16_t bfloat16;

/* What the functions read and write; kernels.py has the same. Sizes of arrays are in brackets. */
struct block {
    int64_t images, height, width, channels;
    int64_t side; /* 2 pools 2 x 2 pixels into one, and takes even heights and widths; 1 pools none */
    float momentum, epsilon;
    const void *inputs;           /* elements [images, height, width, channels] */
    const float *slope;           /* of the activation below nought [1] */
    const float *kept;            /* nought where dropout has struck, else 1 / (1 - p) [images, channels] */
    const float *weight, *bias;   /* of batch normalization [channels] */
    float *running_mean, *running_variance, *means, *inverses; /* the last of deviations [channels] */
    void *outputs;                /* elements [images, height / side, width / side, channels] */
    uint8_t *places;              /* which of the pooled each output was [as outputs] */
    const void *gradients;        /* of the outputs */
    void *input_gradients;
    float *slope_gradient, *weight_gradients, *bias_gradients;
    float *scratch;               /* [scratch_size] */
};

/* Of a convolution's weights and products, as many outputs lie together in a panel. */
#define PANEL 16
/* The points to which a tile of 6 x 6 pixels is transformed; one of them is the sum of a tile of outputs' gradients. */
#define POINTS 36
#define SUM_POINT 7
/* Tiles that are done at a time by one thread, and by all: few, so that they stay near the processor. */
#define OUTPUT_TILES 24
#define WEIGHT_TILES 96
/* Floats between one point's values and the next one's, which else would meet in the same lines of the cache. */
#define GAP 16

/* What a convolution reads and writes, as of float32 all of it; kernels.py has the same. */
struct convolution {
    int64_t images, height, width, inputs, outputs; /* the last are numbers of channels */
    const float *input;                             /* [images, height, width, inputs] */
    const float *weight, *bias;                     /* [3, 3, inputs, outputs], [outputs] or NULL for none */
    float *output;                                  /* [images, height, width, outputs] */
    const float *output_gradient;                   /* as output */
    float *weight_gradient, *bias_gradient;         /* as weight and bias, of which none is NULL */
    float *scratch;
};

/* A tile of 4 x 4 outputs, or less at the lower and right edge, from (top, left) on. */
struct tile {
    int64_t image, top, left;
};

/* The channels that so many take up in panels. */
static inline int64_t in_panels(int64_t channels)
{
    return (channels + PANEL - 1) / PANEL * PANEL;
}

static int64_t tiles_of(const struct convolution *of)
{
    return of->images * ((of->height + 3) / 4) * ((of->width + 3) / 4);
}

static inline struct tile tile_at(const struct convolution *of, int64_t number)
{
    int64_t across = (of->width + 3) / 4, each = (of->height + 3) / 4 * across;
    return (struct tile){number / each, number % each / across * 4, number % across * 4};
}

/* NAME(f) is f_avx2_float32 and so on. */
#define PASTED(name, level, element) name##_##level##_##element
#define EXPANDED(name, level, element) PASTED(name, level, element)
#define NAME(name) EXPANDED(name, LEVEL, ELEMENT)
#define INLINE static inline __attribute__((always_inline))

#define LEVEL generic
#define LANES 4
#define ELEMENT float32
#include "blocks.inc"
#define ELEMENT bfloat16
#include "blocks.inc"
#define ELEMENT float32
#include "convolutions.inc"
#undef LEVEL
#undef LANES

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LEVEL avx2
#define LANES 8
#define ELEMENT float32
#include "blocks.inc"
#define ELEMENT bfloat16
#include "blocks.inc"
#define ELEMENT float32
#include "convolutions.inc"
#undef LEVEL
#undef LANES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#define LEVEL avx512
#define LANES 16
#define ELEMENT float32
#include "blocks.inc"
#define ELEMENT bfloat16
#include "blocks.inc"
#define ELEMENT float32
#include "convolutions.inc"
#undef LEVEL
#undef LANES
#pragma GCC pop_options
#endif

/* Changes with what the functions take or come to: kernels.py calls no other version than its own. */
int version(void)
{
    return 3;
}

int64_t block_size(void)
{
    return sizeof(struct block);
}

int64_t convolution_size(void)
{
    return sizeof(struct convolution);
}

/* Of a function of the OpenMP library whose threads these functions use. */
void *openmp_address(void)
{
    return (void *)omp_get_max_threads;
}

/* How many floats a block's `scratch` holds. */
int64_t block_scratch(int64_t channels)
{
    return (2 * PARTS + 3) * channels;
}

/* How many floats a convolution's `scratch` holds, forward and backward. */
int64_t convolution_scratch(const struct convolution *of)
{
    if (of->inputs < 8)
        return PARTS * ((9 * of->inputs + 1) * of->outputs + 3 * (of->width + 2) * of->inputs);
    int64_t outputs = in_panels(of->outputs), channels = of->inputs + outputs;
    int64_t threads = (tiles_of(of) + OUTPUT_TILES - 1) / OUTPUT_TILES;
    if (threads > omp_get_max_threads())
        threads = omp_get_max_threads();
    int64_t forward = threads * (OUTPUT_TILES * channels + 2 * GAP), backward = WEIGHT_TILES * channels + 2 * GAP;
    return channels + POINTS * (of->inputs * outputs + (forward > backward ? forward : backward));
}
