/* What the programs that make traffic have in common. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* End, saying what has failed. */
static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Seconds of CLOCK_MONOTONIC. */
static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

#endif
