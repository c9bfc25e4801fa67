/* Checkpoints of this process, as `steadfast checkpoint` takes them: what the program does before it is frozen and after
 * it runs again, and parts of it during which it is not frozen.
 *
 * Link with -lsteadfastcheckpoint. A program that only wants to be saved and restored needs nothing of this.
 *
 * Functions return 0, or the negative of an errno. None of them changes errno, prints or ends the process. */
#ifndef STEADFAST_CHECKPOINT_H
#define STEADFAST_CHECKPOINT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A checkpoint that is about to be taken. */
typedef struct steadfast_checkpoint {
    /* Who asks: its number, 0 if it is not seen from here, and its user. */
    uint32_t requester_pid;
    uint32_t requester_uid;
    /* How long the process may be silent, in milliseconds. After that it goes on by itself. */
    uint64_t silence_ms;
    /* How long everybody has together to be ready, in milliseconds. */
    uint64_t ready_ms;
    /* The directory of the images, or NULL. It is valid during the call. */
    const char *images;
    /* 1 if the process is to go on after it, beside its image; else 0. */
    int goes_on;
} steadfast_checkpoint_t;

/* What a function says before a checkpoint. */
enum {
    STEADFAST_READY = 0,
    /* Not now; later it may be. */
    STEADFAST_NOT_NOW = 1,
    /* Never of this process. */
    STEADFAST_NEVER = 2
};

/* What became of it. */
enum {
    /* The image was taken, and this is the process that it was taken of. */
    STEADFAST_CONTINUED = 0,
    /* This is the process that the image became, perhaps later and elsewhere. */
    STEADFAST_RESTORED = 1,
    /* There is no image, or nobody said in time that there is one. */
    STEADFAST_ABANDONED = 2
};

/* What is going on now. */
enum {
    STEADFAST_IDLE = 0,
    /* Somebody waits for the end of all sections. */
    STEADFAST_PENDING = 1,
    /* The process prepares, is ready, or is going on again. */
    STEADFAST_ACTIVE = 2
};

/* Called before a checkpoint; anything but the three values above counts as STEADFAST_NEVER. */
typedef int (*steadfast_before_t)(const steadfast_checkpoint_t *checkpoint, void *argument);
/* Called after it, if `before` said STEADFAST_READY. `text` is the directory of the images after STEADFAST_RESTORED, the
 * reason after STEADFAST_ABANDONED, or NULL; it is valid during the call. Not 0 is told to whoever asked for the checkpoint. */
typedef int (*steadfast_after_t)(int outcome, const char *text, void *argument);

/* Registers two functions, each of which may be NULL. They are called on a thread of the library while the program goes
 * on; before a checkpoint what was registered last comes first, after it the other way round. `id` receives by what it is
 * replaced or unregistered, and may be NULL.
 * Waits while a checkpoint is taken. -EINVAL: both are NULL. -EOPNOTSUPP: STEADFAST_CONTROL is `off`. -ENAMETOOLONG and others: this
 * process can have no control socket; STEADFAST_CONTROL names another directory. */
int steadfast_checkpoint_register(steadfast_before_t before, steadfast_after_t after, void *argument, uint64_t *id);
/* The same with other functions from now on, at the same place. -ENOENT: nothing is registered by that id. */
int steadfast_checkpoint_replace(uint64_t id, steadfast_before_t before, steadfast_after_t after, void *argument);
/* -ENOENT: nothing is registered by that id. A call that has begun goes on. */
int steadfast_checkpoint_unregister(uint64_t id);

/* STEADFAST_IDLE, STEADFAST_PENDING or STEADFAST_ACTIVE. */
int steadfast_checkpoint_phase(void);

/* Begins a part of this thread during which the process is not frozen; waits while a checkpoint is wanted or taken, unless
 * the thread is in such a part already. Parts nest. In a function that is called before or after a checkpoint it does nothing. */
int steadfast_section_enter(void);
/* The same without waiting. -EBUSY: a checkpoint is wanted or taken. */
int steadfast_section_try_enter(void);
/* Ends the innermost part of this thread. If a checkpoint waited for the end of this one alone, returns when that is over:
 * in the process as it goes on, or in the one that was restored. -EPERM: the thread is in none. */
int steadfast_section_leave(void);

#ifdef __cplusplus
}
#endif

#endif
