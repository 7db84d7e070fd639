/* What follows a convolution in training, forward and backward, each in one go over the images: an activation that is
 * linear on both sides of nought (PReLU and its kin), channel dropout, batch normalization, and 2 x 2 max-pooling.
 *
 * kernels.inc has the functions, which are compiled for any processor, for two levels of x86, and for each type of
 * elements. Channels are last in memory, and their number is a multiple of 16, the most LANES.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>

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

/* NAME(f) is f_avx2_float32 and so on. */
#define PASTED(name, level, element) name##_##level##_##element
#define EXPANDED(name, level, element) PASTED(name, level, element)
#define NAME(name) EXPANDED(name, LEVEL, ELEMENT)
#define INLINE static inline __attribute__((always_inline))

#define LEVEL generic
#define LANES 4
#define ELEMENT float32
#include "kernels.inc"
#define ELEMENT bfloat16
#include "kernels.inc"
#undef LEVEL
#undef LANES

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LEVEL avx2
#define LANES 8
#define ELEMENT float32
#include "kernels.inc"
#define ELEMENT bfloat16
#include "kernels.inc"
#undef LEVEL
#undef LANES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#define LEVEL avx512
#define LANES 16
#define ELEMENT float32
#include "kernels.inc"
#define ELEMENT bfloat16
#include "kernels.inc"
#undef LEVEL
#undef LANES
#pragma GCC pop_options
#endif

/* Changes with what the functions take or come to: kernels.py calls no other version than its own. */
int version(void)
{
    return 2;
}

int64_t block_size(void)
{
    return sizeof(struct block);
}

/* Of a function of the OpenMP library whose threads these functions use. */
void *openmp_address(void)
{
    return (void *)omp_get_max_threads;
}

/* How many floats `scratch` holds. */
int64_t scratch_size(int64_t channels)
{
    return (2 * PARTS + 3) * channels;
}
