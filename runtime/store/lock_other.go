//go:build !unix

package store

// lockFolder never locks, so that every Pull begins anew.
func lockFolder(string) (unlock func(), ok bool) { return nil, false }
