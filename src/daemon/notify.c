/* SPDX-License-Identifier: Apache-2.0 */
/* Datagrams to the service manager (notify.h). Own code instead of libsystemd: it is three lines of
 * text, and a library less in every agent. */
#include "notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bytes.h"
#include "log.h"

#define WATCHDOG_US_MIN 2000ULL
#define WATCHDOG_US_MAX (24 * 3600 * 1000000ULL)
/* Beyond the grace period: closing, and writing down what is in the cache. */
#define STOP_MARGIN_US UINT64_C(10000000)

static void tell(struct notify *notify, const char *text)
{
    if (notify->loop == NULL)
        return;
    ssize_t sent = sendto(notify->fd, text, strlen(text), MSG_NOSIGNAL,
                          (const struct sockaddr *)&notify->to, sizeof notify->to);
    if (sent < 0 && !notify->silent)
        log_to(&notify->loop->env, LOG_WARN, "notify: the service manager is not told errno=%d",
               errno);
    notify->silent = sent < 0;
}

void notify_ready(struct notify *notify)
{
    tell(notify, "READY=1");
}

/* Asks for the time that stopping may take, so that the unit need not know limits.stopGrace. */
static void part_drain(void *arg)
{
    struct notify *notify = arg;
    char text[80];
    (void)snprintf(text, sizeof text, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRIu64,
                   notify->loop->stop_grace_us + STOP_MARGIN_US);
    tell(notify, text);
}

static void part_close(void *arg)
{
    struct notify *notify = arg;
    uv_close((uv_handle_t *)&notify->timer, NULL);
}

static void on_watchdog(uv_timer_t *timer)
{
    tell(timer->data, "WATCHDOG=1");
}

/* The time in `text`, or 0: not a number in the range. */
static uint64_t watchdog_us(const char *text)
{
    char *end = NULL;
    if (*text < '0' || *text > '9')
        return 0;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    bool good = errno == 0 && *end == '\0' && value >= WATCHDOG_US_MIN && value <= WATCHDOG_US_MAX;
    return good ? value : 0;
}

/* The interval of WATCHDOG=1: half of what the service manager waits; 0: it does not watch us. */
static uint64_t interval_ms(struct loop *loop, const struct config *config)
{
    char self[24];
    const char *pid = config_environment(config, "WATCHDOG_PID");
    const char *text = config_environment(config, "WATCHDOG_USEC");
    (void)snprintf(self, sizeof self, "%ld", (long)getpid());
    if (*text == '\0' || (*pid != '\0' && strcmp(pid, self) != 0))
        return 0;
    uint64_t us = watchdog_us(text);
    if (us == 0)
        log_to(&loop->env, LOG_WARN,
               "notify: WATCHDOG_USEC is no time from 2 ms to a day: there is no watchdog");
    return us / 2 / 1000;
}

static int socket_open(struct notify *notify, struct loop *loop, const char *path)
{
    if (path[0] != '/' || text_copy(notify->to.sun_path, sizeof notify->to.sun_path, path) != 0) {
        log_to(&loop->env, LOG_WARN,
               "notify: NOTIFY_SOCKET is no path of at most %zu bytes: nobody is told",
               sizeof notify->to.sun_path - 1);
        return E_INVALID;
    }
    notify->to.sun_family = AF_UNIX;
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (notify->fd >= 0)
        return 0;
    log_to(&loop->env, LOG_WARN, "notify: no socket errno=%d: nobody is told", errno);
    return E_IO;
}

int notify_start(struct notify *notify, struct loop *loop, const struct config *config)
{
    const char *path = config_environment(config, "NOTIFY_SOCKET");
    memset(notify, 0, sizeof *notify);
    if (*path == '\0' || socket_open(notify, loop, path) != 0)
        return 0;
    int uv_error = uv_timer_init(&loop->uv, &notify->timer);
    if (uv_error != 0) {
        (void)close(notify->fd);
        return loop_uv_error(uv_error);
    }
    notify->loop = loop;
    notify->timer.data = notify;
    notify->part = (struct loop_part){
        .name = "notify", .arg = notify, .drain = part_drain, .close = part_close};
    loop_add_part(loop, &notify->part);
    uint64_t every_ms = interval_ms(loop, config);
    return every_ms == 0
               ? 0
               : loop_uv_error(uv_timer_start(&notify->timer, on_watchdog, every_ms, every_ms));
}

void notify_close(struct notify *notify)
{
    if (notify->loop != NULL)
        (void)close(notify->fd);
    notify->loop = NULL;
}
