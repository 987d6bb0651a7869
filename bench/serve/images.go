package main

import (
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"os"
	"strconv"
)

// digitImages returns n images of 28 x 28 pixels from 0 to 1, one after the other:
// those of config/samples, of 8 x 8 from 0 to 16, enlarged to the 20 x 20 that
// MNIST's digits have in the middle of a blank border.
func digitImages(n int) ([]float32, error) {
	file, err := os.Open("config/samples/digits.csv.gz")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	const small, large, whole = 8, 20, 28
	const border = (whole - large) / 2
	images := make([]float32, n*whole*whole)
	table := csv.NewReader(unzipped)
	if _, err := table.Read(); err != nil { // the names of the columns
		return nil, err
	}
	for i := range n {
		cells, err := table.Read()
		if err != nil {
			return nil, fmt.Errorf("digit %d: %w", i, err)
		}
		for k := range large * large {
			y, x := k/large, k%large
			pixel, err := strconv.ParseFloat(cells[y*small/large*small+x*small/large], 32)
			if err != nil {
				return nil, fmt.Errorf("digit %d: %w", i, err)
			}
			images[(i*whole+border+y)*whole+border+x] = float32(pixel / 16)
		}
	}
	return images, nil
}
