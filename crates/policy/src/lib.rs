//! Cedar: typed request to decision, reasons, obligations. Pure.
