/* SPDX-License-Identifier: Apache-2.0 */
/* A temporary directory for tests of the daemon that need files: made and removed by group set-up.
 */
#ifndef SHOAL_TESTS_DAEMON_SCRATCH_H
#define SHOAL_TESTS_DAEMON_SCRATCH_H

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_directory[64];

/* Group set-up for cmocka. */
static inline int scratch_make(void **state)
{
    (void)state;
    (void)umask(0);
    (void)snprintf(scratch_directory, sizeof scratch_directory, "/tmp/shoal-test-XXXXXX");
    return mkdtemp(scratch_directory) == NULL ? -1 : 0;
}

static inline int scratch_unlink(const char *path, const struct stat *info, int type,
                                 struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

/* Group tear-down for cmocka. */
static inline int scratch_remove(void **state)
{
    (void)state;
    return nftw(scratch_directory, scratch_unlink, 8, FTW_DEPTH | FTW_PHYS);
}

/* Path of a name in the directory; one of eight buffers used in turn. */
static inline const char *scratch_path(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", scratch_directory, name);
    return path;
}

/* Writes a file with exactly this mode and returns its path. */
static inline const char *scratch_file(const char *name, const char *text, unsigned mode)
{
    const char *path = scratch_path(name);
    (void)unlink(path);
    FILE *file = fopen(path, "w");
    if (file == NULL)
        abort();
    (void)fputs(text, file);
    (void)fclose(file);
    if (chmod(path, (mode_t)mode) != 0)
        abort();
    return path;
}

#endif
