package nn

import "gonum.org/v1/gonum/blas/blas32"

// trained is one layer's side of training: its activations and gradients.
type trained interface {
	forward(x blas32.General) blas32.General
}

func (d *Dense) trained(rows, inputs int) trained              { return nil }
func (l *Normalization) trained(rows, inputs int) trained      { return nil }
func (l *BatchNormalization) trained(rows, inputs int) trained { return nil }
func (l *Dropout) trained(rows, inputs int) trained            { return nil }
