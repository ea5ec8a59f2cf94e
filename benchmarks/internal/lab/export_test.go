package lab

// Rewrite exposes rewrite.
var Rewrite = rewrite
