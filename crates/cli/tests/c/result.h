/* What the test programs have in common: a check that fails says where in DIRECTORY/result, and ends the program. */
#ifndef RESULT_H
#define RESULT_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *directory;

static void result(const char *text) {
    char path[4096], new[4096];
    snprintf(path, sizeof(path), "%s/result", directory);
    snprintf(new, sizeof(new), "%s/result.new", directory);
    FILE *file = fopen(new, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) || rename(new, path))
        _exit(99);
}

#define CHECK(is)                                                                                                            \
    do {                                                                                                                     \
        if (!(is)) {                                                                                                         \
            char text[256];                                                                                                  \
            snprintf(text, sizeof(text), "line %d: %s (%s)\n", __LINE__, #is, strerror(errno));                              \
            result(text);                                                                                                    \
            _exit(98);                                                                                                       \
        }                                                                                                                    \
    } while (0)

#endif
