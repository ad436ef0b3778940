/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes with a pipe each; see plan_jobs.h. */
#include "plan_jobs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_MS 1000

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

bool jobs_interrupted(void)
{
    return interrupted != 0;
}

struct slot {
    pid_t pid; /* 0: free */
    int fd;
    size_t index, used, room;
    uint8_t *output; /* owned */
    bool too_large;
};

static _Noreturn void child(const struct jobs *jobs, size_t index, int fd, pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGINT, SIG_DFL);
    FILE *out = getppid() == parent ? fdopen(fd, "wb") : NULL;
    int code = out == NULL ? 1 : jobs->work(jobs->arg, index, out);
    (void)fflush(stdout);
    if (out == NULL || fclose(out) != 0)
        code = 1;
    _exit(code);
}

static int start(const struct jobs *jobs, size_t index, struct slot *slot)
{
    int ends[2];
    pid_t parent = getpid();
    if (pipe(ends) != 0)
        return E_INTERNAL;
    (void)fflush(NULL); /* or the child would write again what waits in our buffers */
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(ends[0]);
        child(jobs, index, ends[1], parent);
    }
    (void)close(ends[1]);
    if (pid < 0) {
        (void)close(ends[0]);
        return E_INTERNAL;
    }
    *slot = (struct slot){.pid = pid, .fd = ends[0], .index = index};
    return 0;
}

/* Takes what the pipe has. True: it is at its end. */
static bool take(struct slot *slot)
{
    if (slot->used == slot->room) {
        size_t room = slot->room == 0 ? 4096 : 2 * slot->room;
        uint8_t *grown = room > JOBS_OUTPUT_MAX ? NULL : realloc(slot->output, room);
        if (grown == NULL) {
            slot->too_large = true;
            (void)kill(slot->pid, SIGKILL);
            return true;
        }
        slot->output = grown;
        slot->room = room;
    }
    ssize_t bytes = read(slot->fd, slot->output + slot->used, slot->room - slot->used);
    if (bytes > 0)
        slot->used += (size_t)bytes;
    return bytes == 0 || (bytes < 0 && errno != EINTR && errno != EAGAIN);
}

static bool finish(const struct jobs *jobs, struct slot *slot)
{
    int status = 0;
    struct job_result result = {.code = -1, .too_large = slot->too_large};
    while (waitpid(slot->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    (void)close(slot->fd);
    if (WIFEXITED(status))
        result.code = WEXITSTATUS(status);
    else if (WIFSIGNALED(status))
        result.signal = WTERMSIG(status);
    result.output = slot->output;
    result.output_bytes = slot->used;
    bool more = jobs->done(jobs->arg, slot->index, &result);
    free(slot->output);
    *slot = (struct slot){.pid = 0};
    return more;
}

/* Waits for output of any child and takes it. Returns whether more jobs may start. */
static bool wait_some(const struct jobs *jobs, struct slot *slots)
{
    struct pollfd fds[JOBS_MAX];
    bool more = true;
    for (unsigned i = 0; i < jobs->parallel; i++)
        fds[i] = (struct pollfd){.fd = slots[i].pid != 0 ? slots[i].fd : -1, .events = POLLIN};
    int ready = poll(fds, jobs->parallel, TICK_MS);
    if (jobs->tick != NULL)
        jobs->tick(jobs->arg);
    for (unsigned i = 0; i < jobs->parallel && jobs_interrupted(); i++)
        if (slots[i].pid != 0)
            (void)kill(slots[i].pid, SIGKILL);
    if (ready <= 0)
        return true;
    for (unsigned i = 0; i < jobs->parallel; i++)
        if (fds[i].revents != 0 && take(&slots[i]))
            more = finish(jobs, &slots[i]) && more;
    return more;
}

int jobs_run(const struct jobs *jobs)
{
    struct slot slots[JOBS_MAX] = {{.pid = 0}};
    size_t next = 0, running = 0;
    bool more = true;
    int err = 0;
    const struct sigaction action = {.sa_handler = on_interrupt};
    (void)sigaction(SIGINT, &action, NULL);
    do {
        running = 0;
        for (unsigned i = 0; i < jobs->parallel; i++) {
            if (slots[i].pid == 0 && more && err == 0 && next < jobs->count &&
                !jobs_interrupted()) {
                err = start(jobs, next, &slots[i]);
                next += err == 0;
            }
            running += slots[i].pid != 0;
        }
        if (running > 0)
            more = wait_some(jobs, slots) && more;
    } while (running > 0);
    return err;
}

unsigned jobs_processors(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > JOBS_MAX ? JOBS_MAX : (unsigned)count;
}
